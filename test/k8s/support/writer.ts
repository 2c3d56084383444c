/** A pod that writes numbered lines, each flushed to its volume, and says how far it is: what is acknowledged must stay. */
import type { KubernetesObject, V1Pod } from '@kubernetes/client-node';
import { expect } from 'chai';
import type { Kube } from './kube.ts';
import { DATA, type PodOptions, pod } from './manifests.ts';

/** A line that was not written, or not flushed, ends the pod's process with an error: the pod then shows a restart. */
const SCRIPT = `n=$(wc -l < ${DATA}/lines 2>/dev/null || echo 0); echo "begins at $n"; while :; do n=$((n + 1)); echo $n >> ${DATA}/lines && sync ${DATA}/lines || exit 3; echo $n > /tmp/acknowledged; done`;

export function writerPod(name: string, claimName: string, options: PodOptions = {}): V1Pod & KubernetesObject {
  return pod(name, claimName, { ...options, script: SCRIPT });
}

/** Number of the last line that the pod knows to be on its volume. */
export async function acknowledged(kube: Kube, name: string): Promise<number> {
  return Number(await kube.exec(name, 'cat /tmp/acknowledged 2>/dev/null || echo 0'));
}

/** Returns when the pod has got further than `line`. */
export async function writesOn(kube: Kube, name: string, line: number, timeoutMs?: number): Promise<number> {
  return kube.waitFor(
    `${name} writes on after line ${line}`,
    async () => {
      // The pod's host may be on its way back.
      const now = await acknowledged(kube, name).catch(() => 0);
      return now > line && now;
    },
    timeoutMs === undefined ? {} : { timeoutMs },
  );
}

/** @throws AssertionError when a line up to `line` is missing, or one stands twice. @param name a pod that sees the volume */
export async function expectLines(kube: Kube, name: string, line: number): Promise<void> {
  const said = await kube.exec(name, `awk '$1 != NR {print "line " NR " is " $0; exit} END {print NR}' ${DATA}/lines`);
  expect(said, 'every line, in its order').to.match(/^\d+$/);
  expect(Number(said), 'the lines that were acknowledged').to.be.at.least(line);
}

/** @throws AssertionError when the pod's container has ever been started again */
export async function expectNoRestart(kube: Kube, name: string): Promise<void> {
  const { status } = await kube.pod(name);
  expect(status?.containerStatuses?.[0]?.restartCount, `restarts of ${name}`).to.equal(0);
}
