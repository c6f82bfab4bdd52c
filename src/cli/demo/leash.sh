# The leash of one daemon: runs "$@" until it ends by itself, or until standard input ends.
#
# Nobody writes to that input; it ends when its owner closes it or dies of anything, kill -9 included. The daemon is
# asked to stop then, and killed if it has not stopped after five seconds. The exit code is the daemon's.
exec 3<&0 </dev/null
"$@" 3<&- &
pid=$!
(
  read -r nothing <&3
  kill -TERM "$pid" || exit
  tries=0
  while [ "$tries" -lt 100 ]; do
    sleep 0.05
    kill -0 "$pid" || exit
    tries=$((tries + 1))
  done
  kill -KILL "$pid"
) >/dev/null 2>&1 &
watch=$!
exec 3<&-
wait "$pid"
code=$?
kill "$watch" 2>/dev/null
exit "$code"
