/** The two pods: what their containers may do, how they are probed, replaced and found. */
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { expect } from 'chai';
import { execa } from 'execa';
import { SET_BY_CHART } from '../../deploy/schema.ts';
import { runCommandLine } from '../../src/command-line.ts';
import { loadConfig } from '../../src/config/config.ts';
import { flagName, OPTION_KEYS, OPTIONS } from '../../src/config/options.ts';
import { type Container, type Rendered, render } from '../support/manifests.ts';

const ROLES = ['controller', 'node'] as const;

describe('pods of the chart', () => {
  let defaults: Rendered;
  let everything: Rendered;
  before(async () => {
    defaults = await render();
    everything = await render({
      sidecars: { snapshotter: { enabled: true }, verbosity: 4 },
      metrics: { enabled: true, serviceMonitor: { enabled: true } },
      podDisruptionBudget: { enabled: true },
      developmentMode: { enabled: true },
    });
  });
  const containers = (rendered: Rendered) => ROLES.flatMap((role) => rendered.pod(role).containers);
  const sidecars = (rendered: Rendered) => containers(rendered).filter((each) => each.name !== 'driver');

  it('let the driver alone be privileged; a sidecar has no capability and cannot gain one', () => {
    for (const role of ROLES) {
      expect(everything.container(role, 'driver').securityContext).to.include({ privileged: true });
    }
    for (const { name, securityContext } of sidecars(everything)) {
      expect(securityContext, name).to.include({ privileged: false, allowPrivilegeEscalation: false });
      expect(securityContext, name).to.have.deep.property('capabilities', { drop: ['ALL'] });
      expect(securityContext, name).to.have.nested.property('seccompProfile.type', 'RuntimeDefault');
    }
    for (const { name, securityContext } of containers(everything)) {
      expect(securityContext, name).to.include({ readOnlyRootFilesystem: true });
    }
  });

  it("share the controller's socket by group with sidecars that are not root", () => {
    expect(defaults.pod('controller')['securityContext']).to.deep.equal({ fsGroup: 65532 });
    for (const { name, securityContext } of defaults.pod('controller').containers) {
      if (name !== 'driver') expect(securityContext, name).to.include({ runAsNonRoot: true, runAsGroup: 65532 });
    }
  });

  it('are given no folder of the host but those of the sockets, and on the controller those of devices and of LIO', () => {
    const hostPaths = (role: 'controller' | 'node') =>
      (defaults.pod(role)['volumes'] as { hostPath?: { path: string } }[]).flatMap((volume) => volume.hostPath ?? []);
    expect(hostPaths('controller')).to.deep.equal([
      { path: '/dev', type: 'Directory' },
      { path: '/sys/kernel/config', type: 'Directory' },
    ]);
    expect(hostPaths('node').map(({ path }) => path)).to.deep.equal([
      '/var/lib/kubelet/plugins/lvm-iscsi-csi.github.io',
      '/var/lib/kubelet/plugins_registry',
    ]);
  });

  it("let the controller see gates and configfs where LIO is told to: at the host's own paths", () => {
    const { volumeMounts, ...driver } = everything.container('controller', 'driver');
    expect(volumeMounts).to.deep.equal([
      { name: 'socket', mountPath: '/csi' },
      { name: 'dev', mountPath: '/dev' },
      // Also one that the host mounts later.
      { name: 'configfs', mountPath: '/sys/kernel/config', mountPropagation: 'HostToContainer' },
    ]);
    expect(everything.pod('controller')['volumes']).to.deep.include.members([
      { name: 'dev', hostPath: { path: '/dev', type: 'Directory' } },
      { name: 'configfs', hostPath: { path: '/sys/kernel/config', type: 'Directory' } },
    ]);
    expect(driver, "kubelet makes a file there, and /dev is the host's").to.include({
      terminationMessagePath: '/termination-log',
    });
    const others = [...sidecars(everything), everything.container('node', 'driver')];
    for (const { name, volumeMounts: mounts } of others) {
      expect(JSON.stringify(mounts), name).to.not.match(/"dev"|configfs/);
    }
    // The development mode's script has the host's mounts by nsenter.
    expect(everything.pod('controller').initContainers?.[0]?.volumeMounts).to.equal(undefined);
  });

  it('follow kubelet to another folder, and the name of the driver everywhere', async () => {
    const rendered = await render({ kubeletDir: '/var/lib/k0s/kubelet/', driverName: 'lvm.example.com' });
    const registrar = rendered.container('node', 'registrar');
    const folder = '/var/lib/k0s/kubelet/plugins/lvm.example.com';
    expect(registrar.args).to.include(`--kubelet-registration-path=${folder}/csi.sock`);
    expect(rendered.pod('node')['volumes']).to.deep.include({
      name: 'socket',
      hostPath: { path: folder, type: 'DirectoryOrCreate' },
    });
    for (const role of ROLES)
      expect(rendered.container(role, 'driver').args).to.include('--driver-name=lvm.example.com');
    rendered.one('CSIDriver', 'lvm.example.com');
    for (const each of rendered.ofKind('StorageClass')) expect(each).to.include({ provisioner: 'lvm.example.com' });
  });

  it('log no secret: no sidecar is more verbose than 4', () => {
    for (const { name, args } of sidecars(everything)) {
      const levels = args.flatMap((argument) => /^--?v(?:module)?=(.*)$/.exec(argument)?.[1] ?? []);
      expect(levels, name).to.deep.equal(['4']);
    }
    const text = JSON.stringify(everything.manifests);
    expect(text).to.not.match(/password/i);
    expect(everything.ofKind('Secret')).to.deep.equal([]);
  });

  it('are restarted only when the event loop is stuck, never because storage is away', () => {
    for (const role of ROLES) {
      const driver = everything.container(role, 'driver');
      expect(driver.livenessProbe?.httpGet).to.include({ path: '/healthz', host: '127.0.0.1' });
      expect(driver.livenessProbe?.httpGet?.port).to.equal(portOf(driver, 'http'));
      const probe = everything.container(role, 'livenessprobe');
      expect(probe.livenessProbe).to.equal(undefined);
      expect(probe.readinessProbe?.httpGet?.port).to.equal(portOf(probe, 'probe'));
      const others = everything.pod(role).containers.filter((each) => each.name !== 'livenessprobe');
      for (const { livenessProbe } of others) {
        expect(livenessProbe?.httpGet?.port).to.not.equal(portOf(probe, 'probe'));
      }
    }
  });

  it('have more time to end than the driver takes', async () => {
    const rendered = await render({ drainTimeoutSeconds: 90 });
    for (const role of ROLES) {
      expect(rendered.container(role, 'driver').args).to.include('--drain-timeout=90s');
      expect(rendered.pod(role).terminationGracePeriodSeconds).to.equal(100);
    }
  });

  it('cannot be killed for memory by a limit that nobody has asked for', () => {
    for (const { name, resources } of containers(defaults)) expect(resources?.limits, name).to.equal(undefined);
  });

  it('are everywhere they have to be, first and last', () => {
    for (const role of ROLES) expect(defaults.pod(role)['tolerations']).to.deep.equal([{ operator: 'Exists' }]);
    expect(defaults.pod('controller')).to.include({ priorityClassName: 'system-cluster-critical', hostNetwork: true });
    expect(defaults.pod('node')).to.include({ priorityClassName: 'system-node-critical', hostNetwork: true });
    expect(defaults.one('Deployment', 'lvm-iscsi-csi-controller').spec).to.deep.include({
      replicas: 1,
      strategy: { type: 'Recreate' },
    });
  });

  it('run the controller on one host: by label, by name, or as told', async () => {
    expect(defaults.pod('controller').nodeSelector).to.have.property('lvm-iscsi-csi.github.io/storage-host', 'true');
    const named = (await render({ controller: { nodeName: 'storage-1' } })).pod('controller');
    expect(named.nodeSelector).to.deep.equal({ 'kubernetes.io/os': 'linux' });
    expect(JSON.stringify(named['affinity'])).to.include(
      '"key":"metadata.name","operator":"In","values":["storage-1"]',
    );
    const told = (await render({ controller: { nodeSelector: { disk: 'big' } } })).pod('controller');
    expect(told.nodeSelector).to.deep.equal({ 'kubernetes.io/os': 'linux', disk: 'big' });
  });

  it("pass every option of the program on, under the program's own names", async () => {
    const sample = (key: (typeof OPTION_KEYS)[number]): string | number =>
      /^a whole number/.test(OPTIONS[key].kind.allowed) ? 200 : (OPTIONS[key].default ?? '192.0.2.1');
    const keys = (section: string) =>
      OPTION_KEYS.filter((key) => OPTIONS[key].section === section && !SET_BY_CHART.includes(key));
    const values = (section: string) => Object.fromEntries(keys(section).map((key) => [key, sample(key)]));
    const rendered = await render({
      options: values('common'),
      controller: { options: values('controller') },
      node: { options: values('node') },
    });
    for (const role of ROLES) {
      const { args } = rendered.container(role, 'driver');
      for (const key of [...keys('common'), ...keys(role)]) {
        expect(args).to.include(`--${flagName(key)}=${sample(key)}`);
      }
    }
    expect(rendered.container('controller', 'driver').args.join(' ')).to.not.include('HOST_IP');
    const mutual = await render({
      controller: { options: { portals: ['192.0.2.1', '192.0.2.2:3261'], chap: 'mutual' } },
    });
    expect(mutual.container('controller', 'driver').args).to.include('--portals=192.0.2.1,192.0.2.2:3261');
  });

  it('start with arguments that the program accepts', async () => {
    for (const role of ROLES) {
      const args = defaults
        .container(role, 'driver')
        .args.map((argument) => argument.replace('$(HOST_IP)', '2001:db8::1').replace('$(NODE_NAME)', 'worker-1'));
      let config: object | undefined;
      await runCommandLine(args, '0.1.0', {
        run: async (asked, flags) => {
          config = loadConfig({ role: asked, flags, env: {}, readFile: () => '' });
        },
        scrub: async () => undefined,
      });
      expect(config).to.include({ role, hostCommands: 'nsenter', hostRoot: '/proc/1/root', drainTimeoutMs: 25_000 });
    }
  });

  it("take the driver's image from the chart's version, and any by digest", async () => {
    expect(defaults.container('node', 'driver').image).to.equal('ghcr.io/lvm-iscsi-csi/lvm-iscsi-csi:0.1.0');
    const pinned = await render({ image: { tag: '0.1.0@sha256:0123' } });
    expect(pinned.container('node', 'driver').image).to.equal('ghcr.io/lvm-iscsi-csi/lvm-iscsi-csi:0.1.0@sha256:0123');
  });

  it('serve HTTP to their own host alone, until metrics are asked for', () => {
    const endpoints = (rendered: Rendered) =>
      containers(rendered).flatMap(({ args }) =>
        args.flatMap((argument) => /^--(?:http|metrics)-endpoint=(.*):\d+$/.exec(argument)?.[1] ?? []),
      );
    expect(new Set(endpoints(defaults))).to.deep.equal(new Set(['127.0.0.1']));
    expect(defaults.ofKind('Service')).to.deep.equal([]);
    expect(new Set(endpoints(everything))).to.deep.equal(new Set(['0.0.0.0']));
  });

  it('have no two ports alike, since both are in the network of one host', () => {
    const ports = containers(everything).flatMap(({ ports: own }) => (own ?? []).map((each) => each.containerPort));
    expect(ports).to.have.lengthOf(9);
    expect(new Set(ports).size).to.equal(ports.length);
  });

  it('are scraped at ports that they have', () => {
    for (const role of ROLES) {
      const service = everything.one('Service', `lvm-iscsi-csi-${role}-metrics`);
      const names = everything.pod(role).containers.flatMap(({ ports }) => (ports ?? []).map(({ name }) => name));
      const ports = service.spec?.['ports'] as { name: string; targetPort: string }[];
      const served = ports.map((port) => port.targetPort);
      expect(names).to.include.members(served);
      const monitor = everything.one('ServiceMonitor', `lvm-iscsi-csi-${role}`);
      expect(monitor.spec?.['endpoints']).to.deep.equal(served.map((port) => ({ port, interval: '30s' })));
    }
  });

  it('may be forbidden to be drained, but are not by default', () => {
    expect(defaults.ofKind('PodDisruptionBudget')).to.deep.equal([]);
    expect(everything.one('PodDisruptionBudget', 'lvm-iscsi-csi-controller').spec).to.include({ minAvailable: 1 });
  });
});

describe('the readiness command', () => {
  let server: Server;
  let command: readonly string[];
  let answer: { status: number; text: string };

  before(async () => {
    command = (await render()).container('node', 'driver').readinessProbe?.exec?.command ?? [];
    server = createServer((request, response) => {
      response.writeHead(request.url === '/readyz' ? answer.status : 404).end(answer.text);
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  });
  after(() => server.close());

  async function ask(port = (server.address() as AddressInfo).port) {
    const [program, ...args] = command;
    expect(program).to.equal('bash');
    const { exitCode, stdout } = await execa('bash', [...args.slice(0, -1), String(port)], { reject: false });
    return { exitCode, stdout };
  }

  it('succeeds when the driver is ready', async () => {
    answer = { status: 200, text: 'ready\n' };
    expect(await ask()).to.deep.equal({ exitCode: 0, stdout: 'ready' });
  });

  it("fails with the driver's words, which kubelet puts into an event", async () => {
    answer = { status: 503, text: 'iscsiadm is not installed; to do: install the package open-iscsi\n' };
    expect(await ask()).to.deep.equal({
      exitCode: 1,
      stdout: 'iscsiadm is not installed; to do: install the package open-iscsi',
    });
  });

  it('says that nobody answers', async () => {
    const { exitCode, stdout } = await ask(1);
    expect(exitCode).to.equal(1);
    expect(stdout).to.match(/Connection refused(.|\n)*does not answer \/readyz/);
  });
});

function portOf(container: Container, name: string): number | undefined {
  return container.ports?.find((port) => port.name === name)?.containerPort;
}
