/** What the chart renders, as objects. */
import { expect } from 'chai';
import { parseAllDocuments } from 'yaml';
import { helmTemplate } from './helm.ts';

export interface Rule {
  readonly apiGroups: readonly string[];
  readonly resources: readonly string[];
  readonly verbs: readonly string[];
}

export interface Probe {
  readonly exec?: { readonly command: readonly string[] };
  readonly httpGet?: { readonly host: string; readonly path: string; readonly port: number };
  readonly timeoutSeconds: number;
}

export interface Container {
  readonly name: string;
  readonly image: string;
  readonly command?: readonly string[];
  readonly args: readonly string[];
  readonly env?: readonly { readonly name: string }[];
  readonly ports?: readonly { readonly name: string; readonly containerPort: number }[];
  readonly securityContext: Readonly<Record<string, unknown>>;
  readonly livenessProbe?: Probe;
  readonly readinessProbe?: Probe;
  readonly resources?: { readonly limits?: object };
  readonly volumeMounts: readonly { readonly name: string; readonly mountPath: string }[];
}

export interface PodSpec {
  readonly containers: readonly Container[];
  readonly initContainers?: readonly Container[];
  readonly nodeSelector: Readonly<Record<string, string>>;
  readonly terminationGracePeriodSeconds: number;
  readonly [field: string]: unknown;
}

export interface Manifest {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: {
    readonly name: string;
    readonly namespace?: string;
    readonly labels?: Readonly<Record<string, string>>;
    readonly annotations?: Readonly<Record<string, string>>;
  };
  readonly rules?: readonly Rule[];
  readonly spec?: Readonly<Record<string, unknown>> & { readonly template?: { readonly spec: PodSpec } };
  readonly [field: string]: unknown;
}

export class Rendered {
  readonly manifests: readonly Manifest[];

  constructor(manifests: readonly Manifest[]) {
    this.manifests = manifests;
  }

  ofKind(kind: string): Manifest[] {
    return this.manifests.filter((manifest) => manifest.kind === kind);
  }

  one(kind: string, name: string): Manifest {
    const found = this.manifests.filter((each) => each.kind === kind && each.metadata.name === name);
    expect(found, `${kind} ${name}`).to.have.lengthOf(1);
    return found[0] as Manifest;
  }

  pod(role: 'controller' | 'node'): PodSpec {
    const workload = this.one(role === 'controller' ? 'Deployment' : 'DaemonSet', `lvm-iscsi-csi-${role}`);
    const spec = workload.spec?.template?.spec;
    if (spec === undefined) throw new Error(`${role} has no pod template`);
    return spec;
  }

  container(role: 'controller' | 'node', name: string): Container {
    const container = this.pod(role).containers.find((each) => each.name === name);
    if (container === undefined) throw new Error(`the ${role}'s pod has no container ${name}`);
    return container;
  }
}

/** YAML that does not parse, a duplicate key for one, fails here. */
export function parseManifests(text: string): Manifest[] {
  return parseAllDocuments(text).flatMap((document) => {
    expect(document.errors).to.deep.equal([]);
    const value = document.toJS() as Manifest | null;
    return value === null ? [] : [value];
  });
}

/** @param values as in a values file */
export async function render(values: object = {}): Promise<Rendered> {
  const { exitCode, stdout, stderr } = await helmTemplate([], JSON.stringify(values));
  expect(exitCode, stderr).to.equal(0);
  return new Rendered(parseManifests(stdout));
}

/** @returns what helm says to a user whose values are refused */
export async function refusal(values: object): Promise<string> {
  const { exitCode, stderr } = await helmTemplate([], JSON.stringify(values));
  expect(exitCode, `refused: ${JSON.stringify(values)}`).to.not.equal(0);
  return stderr;
}
