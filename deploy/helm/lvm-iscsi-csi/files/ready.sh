# Asks the driver's /readyz, and prints its reasons: kubelet puts what a failed probe prints into the pod's events. By bash
# alone, because a start of node every half minute costs an idle host more than all that the driver does.
port=$0
if ! exec 3<>"/dev/tcp/127.0.0.1/$port"; then
  echo 'the driver does not answer /readyz'
  exit 1
fi 2>&1
printf 'GET /readyz HTTP/1.0\r\n\r\n' >&3
if ! read -r -t 20 _ status _ <&3; then
  echo 'the driver does not answer /readyz: no answer within 20 s'
  exit 1
fi
while IFS= read -r -t 20 line && [[ $line != $'\r' ]]; do :; done <&3
while IFS= read -r -t 20 line; do echo "$line"; done <&3
[[ $status == 200 ]]
