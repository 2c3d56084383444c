# What Cinder's LVM driver runs for an attach. Arguments: portal address, initiator.
lvcreate -qq -y -Wn -Zn -n bench-cinder -L 64M cinder-volumes
iqn=iqn.2010-10.org.bench:cinder
start=$(now)
cinder-rtstool create /dev/cinder-volumes/bench-cinder $iqn user password12345 False -p3260 -a"$1" >/dev/null
cinder-rtstool add-initiator $iqn user password12345 "$2" >/dev/null
cinder-rtstool save /run/bench-saveconfig.json >/dev/null
end=$(now)
test -e "$C/iscsi/$iqn/tpgt_1/acls/$2"
cinder-rtstool delete $iqn >/dev/null
lvremove -qq -y cinder-volumes/bench-cinder
told $start $end
