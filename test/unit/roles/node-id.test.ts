import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { ConfigError, loadConfig } from '../../../src/config/config.ts';
import { checkNodeId } from '../../../src/roles/node-plugin.ts';
import { BlockingFiles } from '../../../src/system/blocking-files.ts';
import { MAX_NODE_ID_BYTES } from '../../../src/volumes/node-id.ts';

describe('the node id at the start', () => {
  const files = new BlockingFiles();
  const hostRoot = mkdtempSync(join(tmpdir(), 'node-id-'));
  after(async () => {
    await files.close();
    rmSync(hostRoot, { recursive: true });
  });

  async function refusal(nodeName: string, initiatorName: string | undefined): Promise<readonly string[] | undefined> {
    const file = '/initiatorname.iscsi';
    rmSync(join(hostRoot, file), { force: true });
    if (initiatorName !== undefined) writeFileSync(join(hostRoot, file), `InitiatorName=${initiatorName}\n`);
    const flags = { nodeName, hostRoot, initiatorNameFile: file };
    const config = loadConfig({ role: 'node', flags, env: {}, readFile: () => '' });
    if (config.role !== 'node') throw new Error('another role');
    try {
      await checkNodeId(config, { files });
      return undefined;
    } catch (error) {
      if (error instanceof ConfigError) return error.problems;
      throw error;
    }
  }

  const IQN = 'iqn.1993-08.org.debian:01:abc';
  const room = MAX_NODE_ID_BYTES - 1 - IQN.length;

  it('may be as long as Kubernetes can store, and not longer', async () => {
    expect(await refusal('n'.repeat(room), IQN)).to.equal(undefined);
    const [problem] = (await refusal('n'.repeat(room + 1), IQN)) ?? [];
    expect(problem).to.contain('initiatorname.iscsi').and.contain('193 bytes').and.contain('at most 192 bytes');
  });

  it('that no controller would understand is refused as well', async () => {
    expect(await refusal('n', 'iqn.1993-08.org.debian_x')).to.have.length(1);
  });

  it('may wait for an initiator name: open-iscsi makes it at its first start', async () => {
    expect(await refusal('n', undefined)).to.equal(undefined);
    expect(await refusal('n', '')).to.equal(undefined);
  });
});
