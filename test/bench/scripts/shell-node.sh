# What the driver does on the node, by a shell. Arguments: up|down, portal address.
iqn=iqn.2010-10.org.bench:shell
i="iscsiadm -m node -T $iqn -p $2:3260"
if [ "$1" = up ]; then
  start=$(now)
  $i -o new >/dev/null
  $i -o update -n node.session.auth.authmethod -v CHAP -n node.session.auth.username -v user -n node.session.auth.password -v password12345 -n node.session.scan -v manual
  $i --login >/dev/null
  for s in /sys/class/iscsi_session/session*; do [ "$(cat $s/targetname)" = $iqn ] && host=$(readlink -f $s/device/..) ; done
  echo '0 0 0' > /sys/class/scsi_host/"$(basename "$host")"/scan
  for n in $(seq 500); do disk=$(ls -d "$host"/session*/target*/*/block/sd* 2>/dev/null) && break; sleep 0.01; done
  blkid -p "/dev/$(basename "$disk")" >/dev/null
  mkdir -p /mnt/bench-stage /mnt/bench-pod
  mount -t ext4 "/dev/$(basename "$disk")" /mnt/bench-stage
  mount --bind /mnt/bench-stage /mnt/bench-pod
  told $start $(now)
else
  umount /mnt/bench-pod /mnt/bench-stage
  $i --logout >/dev/null
  $i -o delete
fi
