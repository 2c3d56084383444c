# On the node: the target accepts a login, and its disk can be read. Arguments: target, portal address.
i="iscsiadm -m node -T $1 -p $2:3260"
$i -o new >/dev/null
$i -o update -n node.session.initial_login_retry_max -v 1 -n node.session.auth.authmethod -v CHAP -n node.session.auth.username -v user -n node.session.auth.password -v password12345
$i --login >/dev/null
link=/dev/disk/by-path/ip-$2:3260-iscsi-$1-lun-0
for n in $(seq 600); do [ -b "$link" ] && break; sleep 0.1; done
dd if="$link" of=/dev/null bs=4k count=1 iflag=direct status=none
udevadm settle
$i --logout >/dev/null
$i -o delete
