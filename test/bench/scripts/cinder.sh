# What Cinder's LVM driver runs for an attach. Arguments: up|down, portal address, initiator.
iqn=iqn.2010-10.org.bench:cinder
lv=/dev/bench/cinder
if [ "$1" = up ]; then
  lvcreate -qq -y -Wn -Zn -n cinder -L 64M bench
  start=$(now)
  cinder-rtstool create $lv $iqn user password12345 False -p3260 -a"$2" >/dev/null
  cinder-rtstool add-initiator $iqn user password12345 "$3" >/dev/null
  cinder-rtstool save /run/bench-saveconfig.json >/dev/null
  told $start $(now)
else
  cinder-rtstool delete $iqn >/dev/null
  rm /run/bench-saveconfig.json
  lvremove -qq -y bench/cinder
fi
