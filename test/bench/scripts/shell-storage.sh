# What the driver does on the storage host for a new ext4 volume, by a shell. Arguments: up|down, portal address, initiator.
iqn=iqn.2010-10.org.bench:shell
lv=/dev/cinder-volumes/bench-shell
start=$(now)
if [ "$1" = up ]; then
  lvcreate -qq -y -Wn -Zn -n bench-shell -L 256M --addtag name cinder-volumes
  mkfs.ext4 -q -E assume_storage_prezeroed=1,nodiscard -m 0 -b 4096 $lv
  sync $lv
  lvchange -qq --addtag made cinder-volumes/bench-shell
  lvchange -qq --addtag attached cinder-volumes/bench-shell
  dmsetup create bench-gate --table "0 $(blockdev --getsz $lv) linear $lv 0"
  export_lv /dev/mapper/bench-gate bench-shell $iqn "$2" "$3"
else
  unexport_lv bench-shell $iqn "$2" "$3"
  dmsetup remove bench-gate
  lvremove -qq -y cinder-volumes/bench-shell
fi
told $start $(now)
