import { expect } from 'chai';
import {
  acceptOnly,
  formatLvmConf,
  getSetting,
  isFilterable,
  parseLvmConf,
  setSetting,
} from '../../../src/lvm/lvm-conf.ts';

/** As `lvmconfig --type current` of 2.03.16 writes it. */
const PRINTED = `config {
}
local {
	system_id="abc"
}
global {
	use_aio=1
	thin_check_options=["-q","--clear"]
}
tags {
	hosttags=1
	storage {
		host_list=["a","b"]
	}
}
devices {
	global_filter="a|^/dev/ubda$|"
}
`;

describe('lvm/lvm-conf', () => {
  it('reads what lvmconfig prints, changes settings, and writes the rest as it was', () => {
    const conf = parseLvmConf(PRINTED);
    expect(getSetting(conf, 'devices/global_filter')).to.equal('"a|^/dev/ubda$|"');
    expect(getSetting(conf, 'devices/filter')).to.equal(undefined);
    setSetting(conf, 'global/use_aio', '0');
    setSetting(conf, 'report/list_item_separator', '","');
    conf.delete('local');
    const text = formatLvmConf(conf);
    expect(text).to.contain('global {\n\tuse_aio=0\n\tthin_check_options=["-q","--clear"]\n}');
    expect(text).to.contain('\tstorage {\nhost_list=["a","b"]\n}\n');
    expect(text).to.contain('report {\n\tlist_item_separator=","\n}');
    expect(text).not.to.contain('system_id');
    expect(formatLvmConf(parseLvmConf(text))).to.equal(text);
  });

  it('does not guess at what it does not understand', () => {
    for (const text of ['devices {', 'a=b', '}', 'devices {\n???\n}']) expect(() => parseLvmConf(text)).to.throw();
  });

  it('accepts exactly the named devices', () => {
    expect(acceptOnly(['/dev/vdb', '/dev/mapper/a.b+c'])).to.equal(
      '["a|^/dev/vdb$|","a|^/dev/mapper/a[.]b[+]c$|","r|.*|"]',
    );
    expect(acceptOnly([])).to.equal('["r|.*|"]');
    expect(isFilterable('/dev/disk/by-id/nvme-Model_S3.1-part1')).to.equal(true);
    for (const path of ['/dev/x|y', '/dev/a b', '/dev/x$', '/dev/\\x20']) expect(isFilterable(path)).to.equal(false);
  });
});
