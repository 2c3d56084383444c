# The least that a publish must do: LIO's configfs writes, with no process started for them, and one LVM command for the
# tag. Arguments: portal address, initiator. The last line is the time in milliseconds.
import os, subprocess, sys, time

address, initiator = sys.argv[1:]
core = '/sys/kernel/config/target/core/iblock_901'
store = core + '/bench-floor'
iqn = '/sys/kernel/config/target/iscsi/iqn.2010-10.org.bench:floor'
group = iqn + '/tpgt_1'
acl = group + '/acls/' + initiator


def lvm(*command):
    subprocess.run(command, check=True)


def write(path, text):
    fd = os.open(path, os.O_WRONLY)
    os.write(fd, text.encode())
    os.close(fd)


lvm('lvcreate', '-qq', '-y', '-Wn', '-Zn', '-n', 'bench-floor', '-L', '64M', 'cinder-volumes')
start = time.monotonic()
lvm('lvchange', '-qq', '--addtag', 'attached', 'cinder-volumes/bench-floor')
os.makedirs(store)
write(store + '/control', 'udev_path=/dev/cinder-volumes/bench-floor')
write(store + '/wwn/vpd_unit_serial', '0a1b2c3d4e5f60718293a4b5c6d7e8f8')
write(store + '/enable', '1')
os.makedirs(group + '/lun/lun_0')
os.symlink(store, group + '/lun/lun_0/x')
os.makedirs(acl + '/lun_0')
os.symlink(group + '/lun/lun_0', acl + '/lun_0/x')
write(acl + '/auth/userid', 'user')
write(acl + '/auth/password', 'password12345')
os.makedirs(group + '/np/' + address + ':3260')
write(group + '/enable', '1')
end = time.monotonic()

write(group + '/enable', '0')
os.unlink(acl + '/lun_0/x')
for path in (acl + '/lun_0', acl, group + '/np/' + address + ':3260'):
    os.rmdir(path)
os.unlink(group + '/lun/lun_0/x')
for path in (group + '/lun/lun_0', group, iqn, store, core):
    os.rmdir(path)
lvm('lvremove', '-qq', '-y', 'cinder-volumes/bench-floor')
print((end - start) * 1000)
