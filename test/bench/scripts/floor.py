# The least that a publish must do: LIO's configfs writes, with no process started for them, and one LVM command for the
# tag. Arguments: up|down, portal address, initiator. `up` prints the time in milliseconds.
import os, subprocess, sys, time

action, address, initiator = sys.argv[1:]
core = '/sys/kernel/config/target/core/iblock_901'
store = core + '/bench-floor'
iqn = '/sys/kernel/config/target/iscsi/iqn.2010-10.org.bench:floor'
group = iqn + '/tpgt_1'
lun = group + '/lun/lun_0'
acl = group + '/acls/' + initiator
portal = group + '/np/' + address + ':3260'


def lvm(*command):
    subprocess.run(command, check=True)


def write(path, text):
    fd = os.open(path, os.O_WRONLY)
    os.write(fd, text.encode())
    os.close(fd)


def up():
    lvm('lvchange', '-qq', '--addtag', 'attached', 'bench/floor')
    os.makedirs(store)
    write(store + '/control', 'udev_path=/dev/bench/floor')
    write(store + '/wwn/vpd_unit_serial', '0a1b2c3d4e5f60718293a4b5c6d7e8f8')
    write(store + '/enable', '1')
    os.makedirs(lun)
    os.symlink(store, lun + '/x')
    os.makedirs(acl + '/lun_0')
    os.symlink(lun, acl + '/lun_0/x')
    write(acl + '/auth/userid', 'user')
    write(acl + '/auth/password', 'password12345')
    os.makedirs(portal)
    write(group + '/enable', '1')


def down():
    write(group + '/enable', '0')
    os.unlink(acl + '/lun_0/x')
    for path in (acl + '/lun_0', acl, portal):
        os.rmdir(path)
    os.unlink(lun + '/x')
    for path in (lun, group, iqn, store, core):
        os.rmdir(path)


if action == 'up':
    lvm('lvcreate', '-qq', '-y', '-Wn', '-Zn', '-n', 'floor', '-L', '64M', 'bench')
    start = time.monotonic()
    up()
    print((time.monotonic() - start) * 1000)
else:
    down()
    lvm('lvremove', '-qq', '-y', 'bench/floor')
