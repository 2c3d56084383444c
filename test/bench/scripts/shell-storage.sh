# What the driver does on the storage host for a new ext4 volume, by a shell. Arguments: up|down, portal address, initiator.
iqn=iqn.2010-10.org.bench:shell
lv=/dev/bench/shell
if [ "$1" = up ]; then
  start=$(now)
  lvcreate -qq -y -Wn -Zn -n shell -L 256M --addtag name bench
  mkfs.ext4 -q -F -T default -b 4096 -m 0 -e remount-ro -E nodiscard,assume_storage_prezeroed=1 -O ^orphan_file,^metadata_csum_seed $lv
  sync $lv
  lvchange -qq --addtag made bench/shell
  lvchange -qq --addtag attached bench/shell
  dmsetup create shell-gate --table "0 $(blockdev --getsz $lv) linear $lv 0"
  export_lv /dev/mapper/shell-gate bench-shell $iqn "$2" "$3"
  told $start $(now)
else
  unexport_lv bench-shell $iqn "$2" "$3"
  dmsetup remove --retry shell-gate
  # The next one is to find zeros again.
  blkdiscard -z $lv
  lvremove -qq -y bench/shell
fi
