/**
 * Who may speak to the cluster: a certificate authority with the API server's certificate and the one it shows to
 * kubelets; everybody else has a token, as a file of tokens is all that a cluster of an hour needs.
 */
import { randomBytes } from 'node:crypto';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { stringify } from 'yaml';
import { run } from '../lab/image.ts';
import { NETWORKS } from '../lab/slots.ts';

/** Where the API server listens, in the lab's namespace. */
export const API = {
  /** on the data network, so that a host whose cable is pulled loses storage and cluster together, as it does elsewhere */
  address: NETWORKS.data.gateway,
  port: 443,
  /** of the service `kubernetes`: the first of the network */
  serviceAddress: '10.96.0.1',
  serviceNetwork: '10.96.0.0/24',
  /** where a cluster's name server is by custom; there is none here */
  nameServer: '10.96.0.10',
} as const;

const VALID_DAYS = '365';
const CURVE = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-noenc'];

export interface Identity {
  readonly user: string;
  readonly token: string;
}

export interface Credentials {
  /** files for the API server and the controller-manager */
  readonly folder: string;
  /** PEM */
  readonly ca: string;
  readonly tokens: {
    /** of a member of system:masters */
    readonly admin: string;
    readonly controllerManager: string;
    readonly scheduler: string;
    node(name: string): string;
  };
}

/** Makes everything anew in `folder`. @param nodes names of the machines with a kubelet */
export async function createCredentials(folder: string, nodes: readonly string[]): Promise<Credentials> {
  await mkdir(folder, { recursive: true, mode: 0o700 });
  const file = (name: string): string => path.join(folder, name);
  const constraints = 'basicConstraints=critical,CA:TRUE';
  await run('openssl', [
    ...['req', '-x509', '-days', VALID_DAYS, '-subj', '/CN=lab', ...CURVE, '-addext', constraints],
    ...['-keyout', file('ca.key'), '-out', file('ca.crt')],
  ]);
  const names = ['DNS:localhost', 'DNS:kubernetes', 'DNS:kubernetes.default', 'DNS:kubernetes.default.svc'];
  const addresses = ['127.0.0.1', API.address, API.serviceAddress].map((address) => `IP:${address}`);
  await certificate(folder, 'server', '/CN=kube-apiserver', `subjectAltName=${[...names, ...addresses].join(',')}`);
  await certificate(folder, 'kubelet-client', '/O=system:masters/CN=kube-apiserver', 'extendedKeyUsage=clientAuth');
  // Signs the tokens of service accounts.
  await run('openssl', ['genrsa', '-out', file('accounts.key'), '2048']);
  await run('openssl', ['rsa', '-in', file('accounts.key'), '-pubout', '-out', file('accounts.pub')]);

  const lines: string[] = [];
  const token = (user: string, group = ''): string => {
    const value = randomBytes(16).toString('hex');
    lines.push(`${value},${user},${user}${group === '' ? '' : `,${group}`}`);
    return value;
  };
  const ofNodes = new Map(nodes.map((name) => [name, token(`system:node:${name}`, 'system:nodes')]));
  const tokens = {
    admin: token('admin', 'system:masters'),
    controllerManager: token('system:kube-controller-manager'),
    scheduler: token('system:kube-scheduler'),
    node(name: string): string {
      const found = ofNodes.get(name);
      if (found === undefined) throw new Error(`no token was made for node "${name}"`);
      return found;
    },
  };
  await writeFile(file('tokens.csv'), `${lines.join('\n')}\n`, { mode: 0o600 });
  return { folder, ca: await readFile(file('ca.crt'), 'utf8'), tokens };
}

async function certificate(folder: string, name: string, subject: string, extension: string): Promise<void> {
  const file = (suffix: string): string => path.join(folder, `${name}.${suffix}`);
  await run('openssl', [
    ...['req', '-x509', '-days', VALID_DAYS, '-subj', subject, ...CURVE, '-addext', extension],
    ...['-addext', 'basicConstraints=critical,CA:FALSE'],
    ...['-CA', path.join(folder, 'ca.crt'), '-CAkey', path.join(folder, 'ca.key')],
    ...['-keyout', file('key'), '-out', file('crt')],
  ]);
}

/** A kubeconfig for one identity. @param ca PEM */
export function kubeconfig(host: string, ca: string, { user, token }: Identity, port: number = API.port): string {
  const server = `https://${host}:${port}`;
  return stringify({
    apiVersion: 'v1',
    kind: 'Config',
    clusters: [{ name: 'lab', cluster: { server, 'certificate-authority-data': Buffer.from(ca).toString('base64') } }],
    users: [{ name: user, user: { token } }],
    contexts: [{ name: 'lab', context: { cluster: 'lab', user } }],
    'current-context': 'lab',
  });
}
