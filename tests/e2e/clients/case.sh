# Sourced by the client programs in shell: `the CAPABILITY NAME COMMAND…` prints a line with the command's output and exit code.
schema=$CLIENT_SCHEMA
export PGOPTIONS="-c search_path=$schema,public"

the() {
    local capability=$1 name=$2 output status=0
    shift 2
    output=$("$@" 2>&1) || status=$?
    printf '%s\t%s\t%s (%d)\n' "$capability" "$name" "$(sed ':a;N;$!ba;s/\\/\\\\/g;s/\t/\\t/g;s/\n/\\n/g' <<<"$output")" "$status"
}
