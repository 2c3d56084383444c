# The least that a publish must do: LIO's configfs writes and one tag. Arguments: portal address, initiator.
lvcreate -qq -y -Wn -Zn -n bench-floor -L 64M cinder-volumes
start=$(now)
lvchange -qq --addtag attached cinder-volumes/bench-floor
export_lv /dev/cinder-volumes/bench-floor bench-floor iqn.2010-10.org.bench:floor "$1" "$2"
end=$(now)
unexport_lv bench-floor iqn.2010-10.org.bench:floor "$1" "$2"
lvremove -qq -y cinder-volumes/bench-floor
told $start $end
