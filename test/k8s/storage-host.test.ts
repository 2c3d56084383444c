/** The storage host goes down and comes back while pods write. */
import { bench, driverReady, useCluster } from './support/bench.ts';
import { claim, DATA, pod } from './support/manifests.ts';
import { acknowledged, expectLines, expectNoRestart, writerPod, writesOn } from './support/writer.ts';

describe('the storage host', () => {
  useCluster();

  it('is rebooted while pods write: they wait, go on without being restarted, and have lost nothing', async () => {
    const { kube, storage, workers } = bench();
    const names = ['writer-1', 'writer-2'] as const;
    for (const [index, name] of names.entries()) {
      await kube.apply(
        claim(name, { size: '64Mi' }),
        writerPod(name, name, { node: workers[index === 0 ? 0 : 1].name }),
      );
    }
    for (const name of names) {
      await kube.podReady(name);
      await writesOn(kube, name, 10);
    }
    await storage.reboot(900_000);
    const lines = new Map<string, number>();
    for (const name of names) {
      // The line after the one that the stop may have caught on its way was begun when the host had been away.
      const caught = await acknowledged(kube, name);
      lines.set(name, await writesOn(kube, name, caught + 1, 900_000));
      await expectNoRestart(kube, name);
      await kube.exec(name, `touch ${DATA}/still-writable`);
    }
    await driverReady();
    await kube.deletePods(names);
    for (const [index, name] of names.entries()) {
      // Each on the other node.
      await kube.apply(pod(`reader-${name}`, name, { node: workers[index === 0 ? 1 : 0].name }));
      await kube.podReady(`reader-${name}`);
      await expectLines(kube, `reader-${name}`, lines.get(name) ?? 0);
    }
  });
});
