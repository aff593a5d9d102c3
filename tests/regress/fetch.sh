#!/usr/bin/env bash
# PostgreSQL 15's own tests, of the version that is installed, into ~/.cache/wireward/postgresql-15: the regression suite, its
# C functions, and libpq_pipeline. Takes Debian's source package; nothing is installed.
set -euo pipefail
version=$(dpkg-query -W -f '${Version}' postgresql-15)
place=$HOME/.cache/wireward/postgresql-15
if [ "$(cat "$place/version" 2>/dev/null)" = "$version" ]; then
    echo "PostgreSQL's tests $version are there"
    exit
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/lists/partial" "$work/cache/archives/partial"
key=/usr/share/keyrings/debian-archive-keyring.gpg
for line in "debian bookworm" "debian bookworm-updates" "debian-security bookworm-security"; do
    read -r archive suite <<<"$line"
    echo "deb-src [signed-by=$key] http://deb.debian.org/$archive $suite main"
    echo "deb [signed-by=$key] http://deb.debian.org/$archive $suite main"
done >"$work/sources.list"
# Our own lists: the machine's stay as they are, and need no source packages.
apt=(apt-get -q -o Dir::Etc::SourceList="$work/sources.list" -o Dir::Etc::SourceParts=/dev/null -o Dir::State::Lists="$work/lists"
    -o Dir::Cache="$work/cache" -o APT::Sandbox::User=root)
cd "$work"
"${apt[@]}" update >/dev/null
# A mirror keeps the newest release only: if the installed one is gone there, that one's tests will do.
exact="=$version"
"${apt[@]}" source --download-only "postgresql-15$exact" >/dev/null 2>&1 || exact=
[ -n "$exact" ] || "${apt[@]}" source --download-only postgresql-15 >/dev/null
"${apt[@]}" download "postgresql-server-dev-15$exact" "libpq-dev$exact" >/dev/null
tar xjf postgresql-15_*.orig.tar.bz2 --wildcards '*/src/test/regress' '*/src/test/modules/libpq_pipeline'
for package in *.deb; do dpkg -x "$package" headers; done

source=$(echo postgresql-15.*/src/test)
include=headers/usr/include/postgresql
mkdir -p made/lib made/bin
cp -r "$source/regress" made/regress
gcc -shared -fPIC -O1 -w -I"$include/15/server" "$source/regress/regress.c" -o made/lib/regress.so
cp /usr/lib/postgresql/15/lib/{autoinc,refint}.so made/lib/
gcc -O1 -w -I"$include" -I"$include/internal" -I"$include/15/server" "$source/modules/libpq_pipeline/libpq_pipeline.c" \
    -o made/bin/libpq_pipeline "$(/sbin/ldconfig -p | sed -n 's/.* => \(.*libpq\.so\.5\)$/\1/p' | head -1)" \
    -Lheaders/usr/lib/postgresql/15/lib -lpgfeutils -lpgcommon -lpgport
echo "$version" >made/version
rm -rf "$place"
mkdir -p "$(dirname "$place")"
mv made "$place"
echo "PostgreSQL's tests $version are in $place"
