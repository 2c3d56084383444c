# Put in front of the scripts beside it: a target in LIO’s configfs with CHAP, and away again; times in milliseconds.
set -e
C=/sys/kernel/config/target
now() { date +%s%N; }
export_lv() { # device name iqn portal initiator
  local b=$C/core/iblock_900/$2 t=$C/iscsi/$3/tpgt_1
  mkdir -p $b; echo udev_path=$1 > $b/control; echo 0a1b2c3d4e5f60718293a4b5c6d7e8f9 > $b/wwn/vpd_unit_serial; echo 1 > $b/enable
  mkdir -p $t/lun/lun_0; ln -s $b $t/lun/lun_0/x
  mkdir -p $t/acls/$5/lun_0; ln -s $t/lun/lun_0 $t/acls/$5/lun_0/x
  printf user > $t/acls/$5/auth/userid; printf password12345 > $t/acls/$5/auth/password
  mkdir -p $t/np/$4:3260; echo 1 > $t/enable
}
unexport_lv() { # name iqn portal initiator
  local b=$C/core/iblock_900/$1 t=$C/iscsi/$2/tpgt_1
  echo 0 > $t/enable; rm $t/acls/$4/lun_0/x; rmdir $t/acls/$4/lun_0 $t/acls/$4; rmdir $t/np/$3:3260; rm $t/lun/lun_0/x; rmdir $t/lun/lun_0 $t $C/iscsi/$2 $b ${b%/*}
}
told() { # start end
  echo $((($2 - $1) / 1000000))
}
