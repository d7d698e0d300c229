# Process 1 of a throw-away PostgreSQL. Arguments: root folder, template folder, what to do
# (template | primary | standby), then port and, for a standby, the primary's port; a folder for the data, which is in
# memory without one; further options of the server.
# Commands on standard input: `restart` (as after a crash), `fast` (a restart as people do it: sessions end, then a
# checkpoint), `stop`, `start`. Its end ends everything.
root=$1 template=$2 role=$3 port=${4:-0} primary_port=${5:-0} folder=${6:-} options=${7:-}
exec 3<&0 </dev/null
home=$root/var/lib/postgresql
data=/var/lib/postgresql/data
bin=/usr/lib/postgresql/17/bin

if [ -n "$folder" ]; then mount --bind "$folder" "$home"; else mount -t tmpfs -o size=2g,mode=755 tmpfs "$home"; fi
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
inside() { chroot --userspec=postgres:postgres "$root" /usr/bin/env LC_ALL=C.UTF-8 PATH=$bin:/usr/bin:/bin "$@"; }
chroot "$root" chown postgres:postgres /var/lib/postgresql

if [ "$role" = template ]; then
    inside initdb --pgdata=$data --username=postgres --auth=trust --encoding=UTF8 --locale=C.UTF-8 \
        --wal-segsize=1 --no-sync
    cat >>"$home/data/postgresql.conf" <<'CONF'
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
fsync = off
shared_buffers = 32MB
max_connections = 200
max_prepared_transactions = 10
max_wal_senders = 10
wal_keep_size = 64MB
wal_log_hints = on
log_line_prefix = '%m [%p] %u@%d '
CONF
    # Whoever is first wins; the template of another is the same.
    cp -a "$home/data" "$template.$$.new"
    mv -T "$template.$$.new" "$template" || rm -rf "$template.$$.new"
    exit 0
fi

if [ "$role" = standby ]; then
    inside pg_basebackup --host=127.0.0.1 --port="$primary_port" --username=postgres --pgdata=$data \
        --write-recovery-conf --wal-method=stream --checkpoint=fast --no-sync
else
    cp -a "$template" "$home/data"
fi

# shellcheck disable=SC2086 # The options are words.
start() { inside postgres -D $data -p "$port" $options & server=$!; }
# The pid file, because the job is the shell around the server.
stop() { kill -"${1:-QUIT}" "$(head -n 1 "$home/data/postmaster.pid")"; wait "$server" || true; }
start
while read -r command <&3; do
    case $command in
    restart) stop; start ;;
    fast) stop INT; start ;;
    stop) stop; echo "stopped" ;;
    start) start ;;
    esac
done
