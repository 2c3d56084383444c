# For trying out only: makes the volume group on a sparse file. Runs in the host's namespaces, at each start of the pod,
# so also after a boot; what is there already is left as it is.
# Arguments: volume group, size, file.
set -eu
export LC_ALL=C PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
vg=$1 size=$2 file=$3

say() { echo "development mode: $*"; }
refuse() { say "$*" >&2; exit 1; }

command -v vgs >/dev/null || refuse "the LVM tools are not installed on this host; to do: install package lvm2"
command -v losetup >/dev/null || refuse "losetup is not installed on this host; to do: install package util-linux (mount on Debian 12)"

attach() {
  modprobe loop 2>/dev/null || :
  losetup --find --show "$file" || refuse "no loop device for $file; to do: modprobe loop, and see losetup --list"
}

# Not one byte is written before it is known whose the name is.
loop=
if [ -e "$file" ]; then
  loop=$(losetup --noheadings --output NAME --associated "$file" | tr -d ' ' | head -n 1)
  [ -n "$loop" ] || loop=$(attach)
fi
groups=$(vgs --noheadings --options vg_name) || refuse "vgs failed, see above"
there=
for name in $groups; do
  [ "$name" != "$vg" ] || there=yes
done
if [ -n "$there" ]; then
  disks=$(vgs --noheadings --options pv_name "$vg") && [ -n "$disks" ] || refuse "the disks of volume group $vg cannot be told, see above"
  for pv in $disks; do
    [ "$pv" = "$loop" ] || refuse "volume group $vg is there already, on $pv: it is real, and not this mode's to use; to do: switch developmentMode off, or choose another controller.options.volumeGroup"
  done
  say "volume group $vg is there, on $loop"
  exit 0
fi
if [ -z "$loop" ]; then
  mkdir -p "$(dirname "$file")"
  # Aside and renamed: a file that is there has its full size.
  truncate --size "$size" "$file.new"
  chmod 0600 "$file.new"
  mv "$file.new" "$file"
  loop=$(attach)
fi
# Asks, and so fails, where the file holds anything else: it is never overwritten.
vgcreate --metadatasize 16m "$vg" "$loop" </dev/null || refuse "vgcreate failed, see above"
say "volume group $vg of $size made on $loop, in the sparse file $file"
