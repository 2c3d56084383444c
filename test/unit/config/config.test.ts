import { hostname } from 'node:os';
import { expect } from 'chai';
import { ConfigError, loadConfig } from '../../../src/config/config.ts';
import { OPTION_KEYS, OPTIONS, type OptionSpec, variableName } from '../../../src/config/options.ts';
import { KUBERNETES_SERVICE_VARIABLE } from '../../../src/config/sources.ts';
import type { Config, Role } from '../../../src/config/types.ts';

interface Given {
  readonly flags?: Record<string, unknown>;
  readonly env?: Record<string, string>;
  readonly file?: string;
}

function load<R extends Role>(role: R, given: Given = {}): Extract<Config, { role: R }> {
  const flags = given.file === undefined ? given.flags : { config: '/etc/c.yaml', ...given.flags };
  const readFile = (path: string): string => {
    if (given.file === undefined || path !== '/etc/c.yaml') throw new Error(`ENOENT: ${path}`);
    return given.file;
  };
  return loadConfig({ role, flags: flags ?? {}, env: given.env ?? {}, readFile }) as Extract<Config, { role: R }>;
}

function problems(role: Role, given: Given): readonly string[] {
  try {
    load(role, given);
  } catch (error) {
    if (error instanceof ConfigError) return error.problems;
    throw error;
  }
  throw new Error('it was accepted');
}

const PORTALS = { portals: '192.0.2.10' };

describe('configuration', () => {
  it('has defaults for everything but the portals', () => {
    expect(load('all', { flags: PORTALS })).to.deep.equal({
      role: 'all',
      driverName: 'lvm-iscsi-csi.github.io',
      endpoint: 'unix:///run/lvm-iscsi-csi/csi/csi.sock',
      tcpEndpoint: undefined,
      logLevel: 'info',
      metricsEndpoint: undefined,
      hostCommands: 'direct',
      hostRoot: '',
      stateDir: '/var/lib/lvm-iscsi-csi',
      runDir: '/run/lvm-iscsi-csi',
      slowCallMs: 10_000,
      drainTimeoutMs: 25_000,
      controller: {
        volumeGroup: 'cinder-volumes',
        clusterId: 'default',
        iqnPrefix: 'iqn.2010-10.org.openstack',
        portals: ['192.0.2.10:3260'],
        defaultFsType: 'ext4',
        defaultVolumeSizeBytes: 2 ** 30,
        maxVolumesPerNode: 256,
        chap: 'on',
        chapKeyFile: '/etc/lvm-iscsi-csi/chap.key',
        wipeBytesPerSecond: 200 * 2 ** 20,
        diskWriteCache: 'off',
        fenceTimeoutMs: 30_000,
      },
      node: {
        nodeName: hostname(),
        initiatorNameFile: '/etc/iscsi/initiatorname.iscsi',
        maxVolumes: 256,
        loginConcurrency: 8,
        loginTimeoutMs: 30_000,
        replacementTimeoutSeconds: 900,
        flushTimeoutMs: 60_000,
      },
    });
  });

  it('has only the role’s own part', () => {
    expect(load('node')).to.have.property('node');
    expect(load('node')).not.to.have.property('controller');
    expect(load('controller', { flags: PORTALS })).not.to.have.property('node');
  });

  it('says how to find the portals, where they are needed', () => {
    expect(problems('controller', {})).to.have.length(1);
    expect(problems('controller', {})[0])
      .to.contain('--portals')
      .and.contain('LVM_ISCSI_CSI_PORTALS')
      .and.contain('ip -brief address');
  });

  it('prefers flag to environment to file to default', () => {
    const file = 'clusterId: file\nvolumeGroup: file\nstateDir: /file\n';
    const env = { LVM_ISCSI_CSI_CLUSTER_ID: 'env', LVM_ISCSI_CSI_VOLUME_GROUP: 'env' };
    const config = load('controller', { file, env, flags: { ...PORTALS, clusterId: 'flag' } });
    expect(config.controller.clusterId).to.equal('flag');
    expect(config.controller.volumeGroup).to.equal('env');
    expect(config.stateDir).to.equal('/file');
    expect(config.runDir).to.equal('/run/lvm-iscsi-csi');
  });

  it('reads CSI_ENDPOINT, our own variable before it, and no other CSI_ variable', () => {
    const env = { CSI_ENDPOINT: 'unix:///a.sock', CSI_NODE_NAME: 'x' };
    expect(load('node', { env }).endpoint).to.equal('unix:///a.sock');
    expect(load('node', { env: { ...env, LVM_ISCSI_CSI_ENDPOINT: 'unix:///b.sock' } }).endpoint).to.equal(
      'unix:///b.sock',
    );
    expect(load('node', { env }).node.nodeName).to.equal(hostname());
    const aliases = OPTION_KEYS.map((key) => (OPTIONS[key] as OptionSpec<unknown>).alias);
    const names = [...OPTION_KEYS.map(variableName), ...aliases].filter((name) => name?.startsWith('CSI_'));
    expect(names, 'CSI: a plugin’s own variables do not begin with CSI_').to.deep.equal(['CSI_ENDPOINT']);
  });

  it('lets the socket share its folder with nothing', () => {
    for (const flags of [
      { endpoint: 'unix:///run/lvm-iscsi-csi/csi.sock' },
      { endpoint: 'unix:///run/./lvm-iscsi-csi//csi.sock' },
      { endpoint: 'unix:///csi/csi.sock', runDir: '/csi/' },
      { endpoint: 'unix:///csi.sock', runDir: '/' },
    ]) {
      const [problem, ...others] = problems('node', { flags });
      expect(problem).to.contain(`option endpoint: the folder of "${flags.endpoint}" is run-dir`);
      expect(problem).to.match(/for example unix:\/\/\/.*csi\/csi\.sock$/);
      expect(others).to.deep.equal([]);
    }
    const flags = { endpoint: 'unix:///var/lib/lvm-iscsi-csi/csi.sock' };
    expect(problems('controller', { flags: { ...PORTALS, ...flags } })[0]).to.contain('state-dir');
    const plugins = 'unix:///var/lib/kubelet/plugins/lvm-iscsi-csi.github.io/csi.sock';
    expect(load('node', { env: { CSI_ENDPOINT: plugins } }).endpoint).to.equal(plugins);
  });

  it('takes the file from the environment, too', () => {
    const readFile = (): string => 'logLevel: debug';
    const env = { LVM_ISCSI_CSI_CONFIG: '/etc/c.yaml' };
    expect(loadConfig({ role: 'node', flags: {}, env, readFile }).logLevel).to.equal('debug');
  });

  it('accepts the other role’s options in file and environment, and still checks them', () => {
    const env = { LVM_ISCSI_CSI_PORTALS: '192.0.2.1' };
    expect(load('node', { env, file: 'volumeGroup: vg0\nchap: off\n' }).role).to.equal('node');
    expect(problems('node', { file: 'volumeGroup: "a/b"' })[0]).to.contain('volume-group');
  });

  it('lets a file be written as people write', () => {
    const file =
      'portals: [192.0.2.1, "[2001:db8::1]:3261"]\nloginConcurrency: 4\nchap: on\ntcpEndpoint:\nmaxVolumes: 0\n';
    const config = load('all', { file });
    expect(config.controller.portals).to.deep.equal(['192.0.2.1:3260', '[2001:db8::1]:3261']);
    expect(config.controller.chap).to.equal('on');
    expect(config.node.loginConcurrency).to.equal(4);
    expect(config.node.maxVolumes).to.equal(0);
    expect(config.tcpEndpoint).to.equal(undefined);
    expect(load('controller', { file: 'chap: false\nportals: 192.0.2.1' }).controller.chap).to.equal('off');
    expect(load('node', { file: '# nothing\n' }).role).to.equal('node');
  });

  it('an empty value takes back what has no default, and is wrong elsewhere', () => {
    const file = 'metricsEndpoint: 127.0.0.1:9809';
    expect(load('node', { file }).metricsEndpoint).to.equal('127.0.0.1:9809');
    expect(load('node', { file, env: { LVM_ISCSI_CSI_METRICS_ENDPOINT: '' } }).metricsEndpoint).to.equal(undefined);
    expect(problems('node', { env: { LVM_ISCSI_CSI_LOG_LEVEL: '' } })).to.have.length(1);
  });

  it('follows hostCommands with hostRoot', () => {
    expect(load('node', { flags: { hostCommands: 'nsenter' } }).hostRoot).to.equal('/proc/1/root');
    expect(load('node', { flags: { hostCommands: 'nsenter', hostRoot: '/host/' } }).hostRoot).to.equal('/host');
    expect(load('node', { flags: { hostRoot: '/' } }).hostRoot).to.equal('');
  });

  it('names option, value, origin and what is allowed', () => {
    const [flag] = problems('node', { flags: { loginTimeout: '30' } });
    expect(flag).to.equal(
      'option login-timeout: "30" (from flag --login-timeout) is not allowed; allowed: a duration with its unit (500ms, 30s, 2m, 1h), from 1s to 1h',
    );
    const [variable] = problems('node', { env: { LVM_ISCSI_CSI_LOG_LEVEL: 'loud' } });
    expect(variable)
      .to.contain('"loud" (from environment variable LVM_ISCSI_CSI_LOG_LEVEL)')
      .and.contain('one of trace, debug');
    const [key] = problems('node', { file: 'loginConcurrency: 0' });
    expect(key).to.contain('"0" (from key loginConcurrency in /etc/c.yaml)').and.contain('from 1 to 256');
  });

  it('names everything that is wrong at once', () => {
    const found = problems('controller', {
      flags: { slowCall: 'x' },
      env: { LVM_ISCSI_CSI_CHAP: 'x' },
      file: 'what: 1',
    });
    expect(found).to.have.length(4);
  });

  it('refuses unknown names, with the likely one', () => {
    expect(problems('node', { file: 'volumeGruop: x' })).to.deep.equal([
      'unknown key volumeGruop in /etc/c.yaml; did you mean volumeGroup?',
    ]);
    expect(problems('node', { file: 'volume-group: x' })[0]).to.contain('did you mean volumeGroup?');
    expect(problems('node', { file: 'zzzzzz: x' })).to.deep.equal(['unknown key zzzzzz in /etc/c.yaml']);
    expect(problems('node', { env: { LVM_ISCSI_CSI_LOGLEVEL: 'debug' } })).to.deep.equal([
      'unknown environment variable LVM_ISCSI_CSI_LOGLEVEL; did you mean LVM_ISCSI_CSI_LOG_LEVEL?',
    ]);
  });

  it('is not confused by the variables that Kubernetes makes for a Service', () => {
    const env = {
      LVM_ISCSI_CSI_SERVICE_HOST: '10.0.0.1',
      LVM_ISCSI_CSI_SERVICE_PORT: '9809',
      LVM_ISCSI_CSI_METRICS_SERVICE_PORT_HTTP: '9809',
      LVM_ISCSI_CSI_PORT: 'tcp://10.0.0.1:9809',
      LVM_ISCSI_CSI_PORT_9809_TCP: 'tcp://10.0.0.1:9809',
      LVM_ISCSI_CSI_PORT_9809_TCP_ADDR: '10.0.0.1',
    };
    expect(load('node', { env }).role).to.equal('node');
    // No option may ever be named so that Kubernetes could set it.
    expect(OPTION_KEYS.map(variableName).filter((name) => KUBERNETES_SERVICE_VARIABLE.test(name))).to.deep.equal([]);
  });

  it('says what is wrong with the file itself', () => {
    expect(problems('node', { flags: { config: '/absent' } })[0]).to.contain('/absent cannot be read');
    expect(problems('node', { file: 'a: [' })[0]).to.contain('is no YAML');
    expect(problems('node', { file: '- a' })[0]).to.contain('must hold a mapping');
    expect(problems('node', { file: 'logLevel: {a: 1}' })[0]).to.contain('must be a plain value');
    expect(problems('node', { file: 'logLevel: debug\nlogLevel: info' })[0]).to.contain('is no YAML');
  });

  const REFUSED: readonly [string, string][] = [
    ['driverName', '1driver'],
    ['driverName', 'driver-'],
    ['driverName', 'a'.repeat(64)],
    ['endpoint', 'tcp://x:1'],
    ['endpoint', 'unix://relative'],
    ['endpoint', `unix:///${'x'.repeat(107)}`],
    ['metricsEndpoint', ':9809'],
    ['metricsEndpoint', 'host:99999'],
    ['hostRoot', 'relative'],
    ['volumeGroup', '..'],
    ['volumeGroup', '-vg'],
    ['clusterId', 'a b'],
    ['iqnPrefix', 'iqn.2010-13.org'],
    ['iqnPrefix', 'IQN.2010-10.org'],
    ['portals', 'storage.example'],
    ['portals', '0.0.0.0'],
    ['portals', '[::]:3260'],
    ['portals', '192.0.2.1,192.0.2.1:3260'],
    ['portals', '192.0.2.1:0'],
    ['portals', '192.0.2.1,'],
    ['defaultVolumeSize', '1023Ki'],
    ['defaultVolumeSize', '0.3'],
    ['defaultVolumeSize', '-1Gi'],
    ['defaultVolumeSize', '1GB'],
    ['wipeRate', '200Mi/m'],
    ['maxVolumesPerNode', '1.5'],
    ['replacementTimeout', '1500ms'],
    ['nodeName', 'a/b'],
    ['drainTimeout', '2h'],
  ];
  for (const [key, value] of REFUSED) {
    it(`refuses ${key} ${value.slice(0, 40)}`, () => {
      expect(problems('all', { flags: { ...PORTALS, [key]: value } })).to.have.length(1);
    });
  }

  it('understands sizes, rates and durations', () => {
    const flags = {
      ...PORTALS,
      defaultVolumeSize: '1.5Gi',
      wipeRate: '1G/s',
      fenceTimeout: '1.5m',
      replacementTimeout: '2h',
      drainTimeout: '500ms',
    };
    const config = load('all', { flags });
    expect(config.controller.defaultVolumeSizeBytes).to.equal(1.5 * 2 ** 30);
    expect(config.controller.wipeBytesPerSecond).to.equal(1e9);
    expect(load('controller', { flags: { ...PORTALS, wipeRate: '0' } }).controller.wipeBytesPerSecond).to.equal(0);
    expect(config.controller.fenceTimeoutMs).to.equal(90_000);
    expect(config.node.replacementTimeoutSeconds).to.equal(7_200);
    expect(config.drainTimeoutMs).to.equal(500);
  });
});
