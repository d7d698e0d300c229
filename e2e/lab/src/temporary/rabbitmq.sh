# Process 1 of a throw-away RabbitMQ. Arguments: root folder, then the ports for AMQP, management, Erlang
# distribution and epmd; a folder for the data, which is in memory without one. Commands on standard input: `restart` (as
# people do it) and `crash` (killed, and started again); its data stays. Its end ends everything.
root=$1 amqp=$2 management=$3 distribution=$4 epmd=$5 folder=${6:-}
exec 3<&0 </dev/null

data=$root/var/lib/rabbitmq
if [ -n "$folder" ]; then mount --bind "$folder" "$data"; else mount -t tmpfs -o size=2g,mode=755 tmpfs "$data"; fi
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
mount -t tmpfs -o mode=755 tmpfs "$root/etc/rabbitmq"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
echo '127.0.0.1 localhost' >"$root/tmp/hosts"
mount --bind "$root/tmp/hosts" "$root/etc/hosts"
chroot "$root" chown rabbitmq:rabbitmq /var/lib/rabbitmq
echo '[rabbitmq_management].' >"$root/etc/rabbitmq/enabled_plugins"
cat >"$root/etc/rabbitmq/rabbitmq.conf" <<CONF
listeners.tcp.1 = 127.0.0.1:$amqp
management.tcp.ip = 127.0.0.1
management.tcp.port = $management
log.console = true
log.console.level = info
log.file = false
vm_memory_high_watermark.absolute = 1GB
disk_free_limit.absolute = 50MB
CONF
# A node of its own under an epmd of its own, so that nodes of other tests and labs never meet it.
start() {
    chroot --userspec=rabbitmq:rabbitmq "$root" /usr/bin/env -i \
        HOME=/var/lib/rabbitmq LC_ALL=C.UTF-8 PATH=/usr/lib/rabbitmq/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        RABBITMQ_NODENAME="temporary-$amqp@localhost" ERL_EPMD_PORT="$epmd" ERL_EPMD_ADDRESS=127.0.0.1 \
        RABBITMQ_DIST_PORT="$distribution" RABBITMQ_LOGS=- \
        RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="+S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none" \
        /usr/lib/rabbitmq/bin/rabbitmq-server &
    server=$!
}
# The broker is the Erlang machine; the job is a shell that waits for it. The folder `proc` shows this namespace alone.
stop() {
    for process in "$root"/proc/[0-9]*; do
        [ "$(cat "$process/comm" 2>/dev/null)" = beam.smp ] || continue
        kill -"$1" "${process##*/}" || true
    done
    wait "$server" || true
}
start
while read -r command <&3; do
    case $command in
    restart) stop TERM; start ;;
    crash) stop KILL; start ;;
    esac
done
