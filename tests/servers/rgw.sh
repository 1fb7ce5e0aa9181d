#!/bin/bash
# Single-node Ceph RADOS Gateway (mon + osd + radosgw) on loopback for tests.
#   rgw.sh start  WORKDIR    bring up a fresh, empty cluster (removes WORKDIR/{mon,osd,run,log,rgw} of an earlier one)
#   rgw.sh stop   WORKDIR    stop it (by recorded pid only)
#   rgw.sh status WORKDIR
# Environment (defaults):
#   RGW_PORT  RGW_MON_PORT_V2  RGW_MON_PORT_V1  RGW_OSD_PORT_MIN  RGW_OSD_PORT_MAX: no defaults, the caller picks
#   RGW_OWNER=PID          when that process ends, however it ends, the cluster is stopped
#   RGW_STORE=memstore|bluestore  RGW_STORE_BYTES=4294967296
#   RGW_ACCESS_KEY=test RGW_SECRET_KEY=testtest  RGW_DEBUG=0/0 (1/1: access log)  RGW_TCMALLOC=1
#   RGW_EXTRA_CONF=  lines appended to ceph.conf, in section [client.rgw] unless they open another
set -euo pipefail

cmd=${1:-}; dir=${2:-}
[ -n "$cmd" ] && [ -n "$dir" ] || { sed -n '2,13p' "$0" >&2; exit 2; }
[ -d "$dir" ] || { [ "$cmd" = start ] && mkdir -p "$dir"; } || exit 0
dir=$(cd "$dir" && pwd)

RGW_PORT=${RGW_PORT:-}; V2=${RGW_MON_PORT_V2:-}; V1=${RGW_MON_PORT_V1:-}
OMIN=${RGW_OSD_PORT_MIN:-}; OMAX=${RGW_OSD_PORT_MAX:-}
STORE=${RGW_STORE:-memstore}; BYTES=${RGW_STORE_BYTES:-4294967296}
AK=${RGW_ACCESS_KEY:-test}; SK=${RGW_SECRET_KEY:-testtest}
conf=$dir/ceph.conf
export CEPH_CONF=$conf
export PATH=$PATH:/usr/sbin:/sbin
ceph=(ceph -c "$conf" --connect-timeout 20)

daemons=(radosgw osd mon)
tcm=
if [ "${RGW_TCMALLOC:-1}" = 1 ]; then
  for f in /usr/lib/*/libtcmalloc.so.4 /usr/lib/*/libtcmalloc_minimal.so.4; do [ -e "$f" ] && { tcm=$f; break; }; done
fi

# alive NAME: pid recorded, process exists and its command line mentions our conf
alive() {
  local p; p=$(cat "$dir/run/$1.pid" 2>/dev/null) || return 1
  [ -n "$p" ] && [ -r "/proc/$p/cmdline" ] || return 1
  tr '\0' ' ' <"/proc/$p/cmdline" | grep -qF -- "$conf" || return 1
}

launch() { # launch NAME cmd...: foreground daemon (-f), put in background by us, so that $! is its pid
  local name=$1; shift
  # Debian builds ceph against plain malloc; tcmalloc comes in as a dependency (RGW_TCMALLOC=0 to do without)
  LD_PRELOAD=${tcm:-} setsid "$@" -f >"$dir/log/$name.out" 2>&1 </dev/null &
  echo $! >"$dir/run/$name.pid"
}

die() { echo "rgw.sh: $*" >&2; for d in mon osd radosgw; do [ -f "$dir/log/$d.out" ] && { echo "--- $d.out" >&2; tail -5 "$dir/log/$d.out" >&2; }; done; [ -z "${started:-}" ] || stop; exit 1; }

stop() { # KILL at once: nothing in here is worth a clean shutdown, and a TERM costs seconds
  local d p i
  for d in "${daemons[@]}"; do
    if alive "$d"; then
      p=$(cat "$dir/run/$d.pid"); kill -KILL "$p" 2>/dev/null || true
      for i in $(seq 50); do alive "$d" || break; sleep 0.02; done
    fi
    rm -f "$dir/run/$d.pid"
  done
}

status() {
  local d rc=0
  for d in mon osd radosgw; do
    if alive "$d"; then
      p=$(cat "$dir/run/$d.pid")
      echo "$d up pid $p rss_mb $(awk '/VmRSS/{printf "%.0f",$2/1024}' /proc/$p/status)"
    else echo "$d down"; rc=1; fi
  done
  return $rc
}

start() {
  [ -n "$RGW_PORT" ] && [ -n "$V2" ] && [ -n "$V1" ] && [ -n "$OMIN" ] && [ -n "$OMAX" ] || { sed -n '2,13p' "$0" >&2; exit 2; }
  local d; for d in "${daemons[@]}"; do alive "$d" && die "$d already runs in $dir"; done
  # a mon port in use could be another cluster, which our commands would then change
  for d in "$RGW_PORT" "$V2" "$V1"; do (exec 3<>"/dev/tcp/127.0.0.1/$d") 2>/dev/null && die "port $d is taken"; done
  started=1
  rm -rf "$dir/mon" "$dir/osd" "$dir/run" "$dir/log" "$dir/rgw"
  mkdir -p "$dir/mon" "$dir/osd" "$dir/run" "$dir/log" "$dir/rgw" "$dir/crash"
  local fsid; fsid=$(cat /proc/sys/kernel/random/uuid)
  cat >"$conf" <<CONF
[global]
fsid = $fsid
mon_initial_members = a
mon_host = [v2:127.0.0.1:$V2,v1:127.0.0.1:$V1]
public_network = 127.0.0.0/8
cluster_network = 127.0.0.0/8
ms_bind_port_min = $OMIN
ms_bind_port_max = $OMAX
auth_cluster_required = none
auth_service_required = none
auth_client_required = none
# radosgw's own default is 'secure', which needs cephx: without this it fails with -13 forever
ms_mon_client_mode = crc
run_dir = $dir/run
admin_socket = $dir/run/\$cluster-\$name.asok
log_file = $dir/log/\$name.log
log_to_stderr = false
err_to_stderr = true
mon_cluster_log_file = $dir/log/cluster.log
crash_dir = $dir/crash
keyring = /dev/null
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 8
osd_pool_default_pgp_num = 8
osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0
mon_allow_pool_size_one = true
mon_max_pg_per_osd = 1000
# default 1 s, paid for every pool that is created at start
paxos_propose_interval = 0.05
paxos_min_wait = 0.02

[mon]
mon_data = $dir/mon
mon_data_avail_warn = 1
mon_data_avail_crit = 0

[osd]
osd_data = $dir/osd
osd_objectstore = $STORE
memstore_device_bytes = $BYTES
bluestore_block_size = $BYTES
bluestore_block_db_create = false
bluestore_block_wal_create = false
osd_memory_target = 1073741824
# short op logs: nothing ever recovers here, and memstore pins a whole write's buffers for each entry
osd_min_pg_log_entries = 20
osd_max_pg_log_entries = 20
osd_target_pg_log_entries_per_osd = 0
osd_pg_log_dups_tracked = 20
osd_pg_log_trim_min = 10

[client]
rgw_data = $dir/rgw

[client.rgw]
# without tcp_nodelay nearly every reply on loopback waits 40 ms (Nagle against delayed ACK)
rgw_frontends = beast endpoint=127.0.0.1:$RGW_PORT tcp_nodelay=1
rgw_enable_usage_log = false
rgw_enable_gc_threads = true
debug_rgw = ${RGW_DEBUG:-0/0}
CONF
  [ -z "${RGW_EXTRA_CONF:-}" ] || printf '%s\n' "$RGW_EXTRA_CONF" >>"$conf"

  if [ -n "${RGW_OWNER:-}" ]; then
    # the owner may be killed with no time to clean up
    setsid bash -c 'tail --pid="$1" -f /dev/null; bash "$2" stop "$3"; rm -rf -- "$3"' watch \
      "$RGW_OWNER" "$(cd "$(dirname "$0")" && pwd)/$(basename "$0")" "$dir" >/dev/null 2>&1 </dev/null &
  fi

  # mon
  monmaptool --create --clobber --fsid "$fsid" --addv a "[v2:127.0.0.1:$V2,v1:127.0.0.1:$V1]" "$dir/monmap" >"$dir/log/mkfs.out" 2>&1 || { cat "$dir/log/mkfs.out" >&2; die monmaptool; }
  ceph-mon -c "$conf" --mkfs -i a --monmap "$dir/monmap" >>"$dir/log/mkfs.out" 2>&1 || { cat "$dir/log/mkfs.out" >&2; die "mon mkfs"; }
  launch mon ceph-mon -c "$conf" -i a
  # osd
  local uuid; uuid=$(cat /proc/sys/kernel/random/uuid)
  timeout 60 "${ceph[@]}" osd new "$uuid" 0 >>"$dir/log/mkfs.out" 2>&1 || { cat "$dir/log/mkfs.out" >&2; die "osd new"; }
  ceph-osd -c "$conf" -i 0 --mkfs --osd-uuid "$uuid" >>"$dir/log/mkfs.out" 2>&1 || { cat "$dir/log/mkfs.out" >&2; die "osd mkfs"; }
  launch osd ceph-osd -c "$conf" -i 0
  # radosgw creates its own pools once the osd is up; radosgw-admin does it first
  timeout 60 radosgw-admin -c "$conf" user create --uid=test --display-name=test \
     --access-key="$AK" --secret-key="$SK" >"$dir/log/user.out" 2>&1 || { cat "$dir/log/user.out" >&2; die "user create"; }
  launch radosgw radosgw -c "$conf" -n client.rgw
  local i
  for i in $(seq 600); do
    alive radosgw || die "radosgw exited"
    curl -s -o /dev/null --max-time 2 "http://127.0.0.1:$RGW_PORT/" && { echo "rgw up on http://127.0.0.1:$RGW_PORT"; return 0; }
    sleep 0.1
  done
  die "radosgw did not answer"
}

case $cmd in
  start) start ;;
  stop) stop ;;
  status) status ;;
  *) sed -n '2,13p' "$0" >&2; exit 2 ;;
esac
