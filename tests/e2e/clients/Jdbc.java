// pgjdbc: prepares on the server from the first execution on, reads binary where it can, and uses the fast path for large objects.
// Run as `java -cp postgresql.jar Jdbc.java`.

import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.sql.*;
import java.util.*;
import org.postgresql.PGConnection;
import org.postgresql.PGNotification;
import org.postgresql.copy.CopyManager;
import org.postgresql.largeobject.LargeObject;
import org.postgresql.largeobject.LargeObjectManager;
import org.postgresql.util.PSQLException;
import org.postgresql.util.ServerErrorMessage;

public class Jdbc {
    interface Body { Object run() throws Exception; }

    static final String SCHEMA = System.getenv("CLIENT_SCHEMA");

    static void the(String capability, String name, Body body) {
        String outcome;
        try {
            outcome = shown(body.run());
        } catch (SQLException error) {
            outcome = "FAILED " + error.getSQLState() + " " + error.getMessage().replace("\n", " ");
        } catch (Exception error) {
            outcome = "FAILED " + error.toString().replace("\n", " ");
        }
        System.out.println(capability + "\t" + name + "\t" + outcome);
    }

    static String shown(Object value) throws SQLException {
        if (value instanceof byte[] bytes) return HexFormat.of().formatHex(bytes);
        if (value instanceof java.sql.Array array) return shown(array.getArray());
        if (value instanceof Object[] many) return shown(Arrays.asList(many));
        if (value instanceof Collection<?> many) {
            StringJoiner joined = new StringJoiner(", ", "[", "]");
            for (Object one : many) joined.add(shown(one));
            return joined.toString();
        }
        return String.valueOf(value).replace("\n", "\\n").replace("\t", "\\t");
    }

    static Connection connect(String... options) throws SQLException {
        Properties p = new Properties();
        p.put("user", System.getenv("PGUSER"));
        p.put("password", System.getenv("PGPASSWORD"));
        p.put("currentSchema", SCHEMA + ",public");
        p.put("sslmode", System.getenv("PGSSLMODE"));
        if (System.getenv("PGSSLROOTCERT") != null) p.put("sslrootcert", System.getenv("PGSSLROOTCERT"));
        for (int i = 0; i < options.length; i += 2) p.put(options[i], options[i + 1]);
        return DriverManager.getConnection("jdbc:postgresql://127.0.0.1:" + System.getenv("PGPORT") + "/" + System.getenv("PGDATABASE"), p);
    }

    static List<List<Object>> rows(ResultSet r) throws SQLException {
        List<List<Object>> all = new ArrayList<>();
        int columns = r.getMetaData().getColumnCount();
        while (r.next()) {
            List<Object> row = new ArrayList<>();
            for (int i = 1; i <= columns; i++) {
                Object value = r.getObject(i);
                row.add(value instanceof java.sql.Array ? shown(value) : value);
            }
            all.add(row);
        }
        return all;
    }

    static List<List<Object>> ask(Connection c, String text, Object... values) throws SQLException {
        try (PreparedStatement s = c.prepareStatement(text)) {
            for (int i = 0; i < values.length; i++) s.setObject(i + 1, values[i]);
            return rows(s.executeQuery());
        }
    }

    static String refusal(Body body) {
        try {
            body.run();
        } catch (SQLException error) {
            return error.getSQLState();
        } catch (Exception error) {
            return "FAILED " + error;
        }
        return "FAILED nothing was refused";
    }

    static String textOf(String variable) throws java.io.IOException {
        return Files.readString(Path.of(System.getenv(variable)));
    }

    public static void main(String[] none) throws Exception {
        String make = textOf("CLIENT_MAKE"), values = textOf("CLIENT_VALUES");
        the("introspection", "metadata_of_everything", () -> introspection(make));
        the("prepared", "statements_are_prepared_and_run_again", Jdbc::prepared);
        the("prepared", "batches_are_pipelined", Jdbc::batches);
        the("binary", "values_in_text_and_in_binary", () -> {
            List<Object> seen = new ArrayList<>();
            for (String binary : List.of("false", "true"))
                try (Connection c = connect("binaryTransfer", binary, "prepareThreshold", "-1")) {
                    for (int i = 0; i < 3; i++) seen.add(ask(c, values));
                }
            return seen;
        });
        the("binary", "simple_queries_give_the_same", () -> {
            try (Connection c = connect("preferQueryMode", "simple")) { return ask(c, values); }
        });
        the("copy", "copies_go_in_and_out", Jdbc::copies);
        the("cancel", "a_statement_is_cancelled", Jdbc::cancels);
        the("notify", "a_notification_arrives", Jdbc::notifies);
        the("large objects", "a_large_object_is_written_read_moved_in_and_cut", Jdbc::largeObjects);
        the("cursors", "rows_come_in_batches", () -> {
            try (Connection c = connect()) {
                c.setAutoCommit(false);
                try (PreparedStatement s = c.prepareStatement("select n, repeat('x', n % 50) from generate_series(1, 5000) n")) {
                    s.setFetchSize(37);
                    long sum = 0;
                    ResultSet r = s.executeQuery();
                    while (r.next()) sum += r.getInt(1) + r.getString(2).length();
                    return sum;
                }
            }
        });
        the("transactions", "savepoints_isolation_and_generated_keys", Jdbc::transactions);
        the("errors", "errors_have_all_their_fields", Jdbc::errors);
    }

    static Object introspection(String make) throws Exception {
        try (Connection c = connect()) {
            c.createStatement().execute(make);
            DatabaseMetaData m = c.getMetaData();
            List<Object> seen = new ArrayList<>();
            seen.add(rows(m.getTables(null, SCHEMA, "%", null)));
            seen.add(rows(m.getColumns(null, SCHEMA, "%", "%")));
            seen.add(rows(m.getPrimaryKeys(null, SCHEMA, "pet")));
            seen.add(rows(m.getImportedKeys(null, SCHEMA, "pet")));
            seen.add(rows(m.getExportedKeys(null, SCHEMA, "owner")));
            seen.add(rows(m.getIndexInfo(null, SCHEMA, "pet", false, true)));
            seen.add(rows(m.getFunctions(null, SCHEMA, "%")));
            seen.add(rows(m.getFunctionColumns(null, SCHEMA, "%", "%")));
            seen.add(rows(m.getProcedures(null, SCHEMA, "%")));
            seen.add(rows(m.getUDTs(null, SCHEMA, "%", null)));
            seen.add(rows(m.getTablePrivileges(null, SCHEMA, "pet")));
            seen.add(rows(m.getBestRowIdentifier(null, SCHEMA, "pet", DatabaseMetaData.bestRowSession, false)));
            seen.add(m.getDatabaseMajorVersion() + " " + m.getMaxColumnNameLength());
            int types = 0;
            for (ResultSet r = m.getTypeInfo(); r.next(); ) types++;
            seen.add(types > 50);
            ResultSetMetaData d = c.prepareStatement("select * from pet").getMetaData();
            for (int i = 1; i <= d.getColumnCount(); i++)
                seen.add(d.getColumnName(i) + " " + d.getColumnTypeName(i) + " " + d.isNullable(i) + " " + d.isAutoIncrement(i) + " " + d.getPrecision(i));
            // Specific names of functions end in their numbers.
            return shown(seen).replaceAll("(twice|nothing)_[0-9]+", "$1_N");
        }
    }

    static Object prepared() throws Exception {
        try (Connection c = connect("prepareThreshold", "1")) {
            List<Object> seen = new ArrayList<>();
            try (PreparedStatement s = c.prepareStatement("select name, weight, tags, seen from pet where id = ?")) {
                for (long id = 1; id < 20; id++) {
                    s.setLong(1, id);
                    seen.add(rows(s.executeQuery()));
                }
            }
            for (int n = 0; n < 400; n++) ask(c, "select " + n + " + ?::int", n);
            return seen;
        }
    }

    static Object batches() throws Exception {
        try (Connection c = connect("reWriteBatchedInserts", "true")) {
            c.createStatement().execute("create temp table many (n int, t text)");
            c.setAutoCommit(false);
            try (PreparedStatement s = c.prepareStatement("insert into many values (?, ?)")) {
                for (int n = 0; n < 3000; n++) {
                    s.setInt(1, n);
                    s.setString(2, "v" + n);
                    s.addBatch();
                }
                s.executeBatch();
            }
            c.commit();
            List<Object> seen = new ArrayList<>(ask(c, "select count(*), sum(n) from many"));
            c.setAutoCommit(true);
            try (Statement s = c.createStatement()) {
                s.addBatch("insert into many values (-1, 'a')");
                s.addBatch("insert into many values ('x', 'b')");
                s.addBatch("insert into many values (-2, 'c')");
                seen.add(refusal(() -> s.executeBatch()));
            }
            seen.add(ask(c, "select count(*) from many where n < 0"));
            return seen;
        }
    }

    static Object copies() throws Exception {
        try (Connection c = connect()) {
            CopyManager copy = c.unwrap(PGConnection.class).getCopyAPI();
            c.createStatement().execute("create temp table copied (n int, t text, b bytea)");
            List<Object> seen = new ArrayList<>();
            for (String format : List.of("text", "csv", "binary")) {
                ByteArrayOutputStream out = new ByteArrayOutputStream();
                seen.add(copy.copyOut("copy pet (legs, name, photo) to stdout (format " + format + ")", out));
                c.createStatement().execute("truncate copied");
                seen.add(copy.copyIn("copy copied from stdin (format " + format + ")", new ByteArrayInputStream(out.toByteArray())));
                seen.add(ask(c, "select count(*), sum(n), md5(string_agg(b, '' order by t)) from copied"));
            }
            seen.add(refusal(() -> copy.copyIn("copy owner (id) from stdin", new ByteArrayInputStream("x\n".getBytes(StandardCharsets.UTF_8)))));
            return seen;
        }
    }

    static Object cancels() throws Exception {
        try (Connection c = connect(); Statement s = c.createStatement()) {
            Thread canceller = new Thread(() -> {
                try {
                    Thread.sleep(300);
                    s.cancel();
                } catch (Exception error) {
                    throw new RuntimeException(error);
                }
            });
            canceller.start();
            String cancelled = refusal(() -> s.execute("select pg_sleep(30)"));
            canceller.join();
            s.setQueryTimeout(1);
            String timedOut = refusal(() -> s.execute("select pg_sleep(30)"));
            return List.of(cancelled, timedOut, ask(c, "select 'goes on'"));
        }
    }

    static Object notifies() throws Exception {
        try (Connection hears = connect(); Connection rings = connect()) {
            hears.createStatement().execute("listen " + SCHEMA + "_bell");
            rings.createStatement().execute("notify " + SCHEMA + "_bell, 'ring'");
            PGNotification[] heard = hears.unwrap(PGConnection.class).getNotifications(10_000);
            return heard[0].getName() + " " + heard[0].getParameter();
        }
    }

    static Object largeObjects() throws Exception {
        try (Connection c = connect()) {
            c.setAutoCommit(false);
            LargeObjectManager manager = c.unwrap(PGConnection.class).getLargeObjectAPI();
            long oid = manager.createLO(LargeObjectManager.READWRITE);
            LargeObject object = manager.open(oid, LargeObjectManager.READWRITE);
            byte[] bytes = new byte[200_000];
            for (int i = 0; i < bytes.length; i++) bytes[i] = (byte) i;
            object.write(bytes);
            List<Object> seen = new ArrayList<>();
            object.seek(1000);
            seen.add(object.read(8));
            seen.add(object.tell64());
            seen.add(object.size64());
            object.truncate64(150_000);
            object.seek64(0, LargeObject.SEEK_SET);
            seen.add(object.read(200_000).length);
            ByteArrayOutputStream out = new ByteArrayOutputStream();
            object.seek(0);
            object.getInputStream().transferTo(out);
            seen.add(out.size());
            manager.delete(oid);
            Savepoint before = c.setSavepoint();
            seen.add(refusal(() -> manager.open(oid, LargeObjectManager.READ)));
            c.rollback(before);
            c.commit();
            return seen;
        }
    }

    static Object transactions() throws Exception {
        try (Connection c = connect()) {
            c.setTransactionIsolation(Connection.TRANSACTION_SERIALIZABLE);
            c.setAutoCommit(false);
            List<Object> seen = new ArrayList<>();
            seen.add(c.getTransactionIsolation());
            try (PreparedStatement s = c.prepareStatement("insert into owner (name) values (?)", Statement.RETURN_GENERATED_KEYS)) {
                s.setString(1, "by jdbc");
                s.executeUpdate();
                ResultSet keys = s.getGeneratedKeys();
                keys.next();
                seen.add(keys.getInt("id") > 0);
            }
            Savepoint before = c.setSavepoint("before");
            seen.add(refusal(() -> c.createStatement().execute("select 1 / 0")));
            seen.add(refusal(() -> c.createStatement().execute("select 1")));
            c.rollback(before);
            seen.add(ask(c, "select count(*) from owner where name = 'by jdbc'"));
            c.rollback();
            c.setReadOnly(true);
            seen.add(refusal(() -> c.createStatement().execute("delete from owner")));
            c.rollback();
            return seen;
        }
    }

    static Object errors() throws Exception {
        List<Object> seen = new ArrayList<>();
        try (Connection c = connect()) {
            for (String text : List.of("select * from nowhere", "select 1 / 0", "selec 1", "insert into owner (name) values ('owner 1')", "select twice('x')")) {
                try {
                    c.createStatement().execute(text);
                    seen.add("FAILED nothing was refused");
                } catch (PSQLException error) {
                    ServerErrorMessage m = error.getServerErrorMessage();
                    seen.add(Arrays.asList(m.getSQLState(), m.getMessage(), m.getDetail(), m.getHint(), m.getPosition(), m.getTable(), m.getConstraint()));
                }
            }
            try (Statement s = c.createStatement()) {
                s.execute("do $$ begin raise warning 'two'; end $$");
                seen.add(s.getWarnings().getMessage());
            }
        }
        return seen;
    }
}
