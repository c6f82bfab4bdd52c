# The guard of one throw-away cluster: makes its directory, starts and stops its server, removes both.
#
# It takes orders on standard input, one a line, and answers each with one line. When the input ends, because
# its owner closed it or died of anything, kill -9 included, it stops the server and removes the directory.
# $1: the directory of initdb and postgres; $2: where the directory of the cluster is to be made.
trap '' INT TERM HUP PIPE
bin=$1
pid=
base=$(mktemp -d "$2/hubsyncd-XXXXXX" 2>&1) || { echo "failed $base"; exit 1; }
exec 2>>"$base/log"
echo "directory $base"

# Sends signal $1 until the server is gone (a signal may come before the server listens to it), growing harsher
# after 30 s and 60 s.
halt() {
  [ -n "$pid" ] || return 0
  tries=0
  signal=$1
  while kill -"$signal" "$pid" 2>/dev/null; do
    sleep 0.02
    tries=$((tries + 1))
    [ "$tries" -ne 1500 ] || signal=QUIT
    [ "$tries" -ne 3000 ] || signal=KILL
  done
  wait "$pid"
  pid=
}

# Starts the server and waits until it takes connections, at most a minute.
start() {
  "$bin/postgres" -D "$base/data" >>"$base/log" &
  pid=$!
  tries=0
  while [ "$tries" -lt 3000 ]; do
    sleep 0.02
    case $(sed -n '1h;8{G;p;}' "$base/data/postmaster.pid" 2>/dev/null) in
      ready*"$pid") echo "ready $pid"; return ;;
    esac
    kill -0 "$pid" 2>/dev/null || break
    tries=$((tries + 1))
  done
  halt QUIT
  echo "failed the server did not start"
}

while read -r order argument; do
  case $order in
    initdb)
      # Programs that this user cannot reach have been copied.
      [ -x "$bin/initdb" ] || bin=$base/postgresql/bin
      if "$bin/initdb" -D "$base/data" -A trust -U postgres --no-sync -E UTF8 --locale=C.UTF-8 >>"$base/log"
      then echo done
      else echo "failed initdb"
      fi ;;
    start) start ;;
    stop) halt "$argument"; echo done ;;
  esac
done

halt QUIT
cd /
rm -rf "$base" || { sleep 1; rm -rf "$base"; }
