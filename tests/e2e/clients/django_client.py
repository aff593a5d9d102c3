"""Django: inspectdb, the ORM, and its schema editor."""

import datetime
import decimal
import io
import os
import sys
import types

import django
from django.conf import settings
from django.core.management import call_command

from case import MAKE, SCHEMA, case, main, refusal

# An application of its own for the models below.
sys.modules["shelf"] = types.ModuleType("shelf")
sys.modules["shelf"].__path__ = [os.getcwd()]
settings.configure(
    DATABASES={"default": {
        "ENGINE": "django.db.backends.postgresql", "NAME": os.environ["PGDATABASE"], "USER": os.environ["PGUSER"],
        "PASSWORD": os.environ["PGPASSWORD"], "HOST": os.environ["PGHOST"], "PORT": os.environ["PGPORT"],
        "OPTIONS": {"options": f"-c search_path={SCHEMA}"},
    }},
    INSTALLED_APPS=["django.contrib.postgres", "django.contrib.contenttypes", "django.contrib.auth", "shelf"],
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField", USE_TZ=True,
)
django.setup()

from django.contrib.postgres.aggregates import ArrayAgg  # noqa: E402
from django.contrib.postgres.fields import ArrayField  # noqa: E402
from django.db import connection, models, transaction  # noqa: E402

class Writer(models.Model):
    name = models.CharField(max_length=40, unique=True)
    tags = ArrayField(models.CharField(max_length=10), default=list)
    facts = models.JSONField(default=dict)

    class Meta:
        app_label = "shelf"


class Volume(models.Model):
    writer = models.ForeignKey(Writer, on_delete=models.CASCADE)
    title = models.TextField()
    price = models.DecimalField(max_digits=8, decimal_places=2)
    cover = models.BinaryField(null=True)
    printed = models.DateField(null=True)

    class Meta:
        app_label = "shelf"
        indexes = [models.Index(fields=["title"], name="volume_title")]


@case("introspection")
def inspectdb_writes_models():
    with connection.cursor() as cursor:
        cursor.execute(MAKE)
    out = io.StringIO()
    call_command("inspectdb", include_views=True, stdout=out)
    return out.getvalue()


@case("introspection")
def tables_are_introspected():
    look = connection.introspection
    with connection.cursor() as cursor:
        return [
            sorted((t.name, t.type) for t in look.get_table_list(cursor)),
            # The number of a type of our own is never the same.
            [tuple(map(str, column)) for column in look.get_table_description(cursor, "pet") if column.name != "home"],
            look.get_constraints(cursor, "pet"), look.get_relations(cursor, "pet"), look.get_sequences(cursor, "owner"),
        ]


@case("introspection")
def migrations_run():
    out = io.StringIO()
    call_command("migrate", stdout=out, verbosity=1, no_color=True)
    with connection.cursor() as cursor:
        cursor.execute("select count(*) from django_migrations")
        return out.getvalue(), cursor.fetchone(), len(connection.introspection.table_names())


@case("prepared")
def the_orm_writes_and_reads():
    with connection.schema_editor() as editor:
        editor.create_model(Writer)
        editor.create_model(Volume)
    with transaction.atomic():
        for n in range(20):
            writer = Writer.objects.create(name=f"w{n}", tags=["x", str(n)], facts={"n": n, "deep": [1, None]})
            Volume.objects.bulk_create([Volume(writer=writer, title=f"v{n}.{m}", price=decimal.Decimal(m) / 4, cover=bytes([n, m]),
                                               printed=datetime.date(2026, 1, 1 + m)) for m in range(4)])
    by_writer = Writer.objects.annotate(total=models.Sum("volume__price"), titles=ArrayAgg("volume__title", ordering="volume__title"))
    seen = [list(by_writer.order_by("id").values_list("name", "total", "titles")[:4])]
    seen.append(list(Writer.objects.filter(facts__n__gt=17, tags__contains=["x"]).values_list("name", flat=True).order_by("name")))
    seen.append(Volume.objects.filter(title__icontains="V1").update(price=models.F("price") + 1))
    seen.append([bytes(v.cover) for v in Volume.objects.select_related("writer").order_by("id")[:3]])
    seen.append(Writer.objects.update_or_create(name="w1", defaults={"tags": ["new"]})[1])
    seen.append(Volume.objects.order_by("id").last().delete()[0])
    seen.append(list(Volume.objects.dates("printed", "day")))
    return seen


@case("transactions")
def errors_and_savepoints():
    def twice():
        with transaction.atomic():
            Writer.objects.create(name="w1")

    with transaction.atomic():
        Writer.objects.create(name="outer")
        outcome = refusal(twice)
        with transaction.atomic():
            Writer.objects.create(name="inner")
    return outcome, Writer.objects.filter(name__in=["outer", "inner"]).count()


@case("cursors")
def a_server_side_cursor_iterates():
    return sum(1 for _ in Volume.objects.order_by("id").iterator(chunk_size=10))


@case("copy")
def the_drivers_copy_is_at_hand():
    with connection.cursor() as cursor, cursor.copy("copy owner (id, name) to stdout") as copy:
        return b"".join(bytes(part) for part in copy)


main()
