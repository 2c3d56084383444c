import { mkdir, mkdtemp, rm, symlink } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { followHostPath, resolveHostPath } from '../../../src/filesystem/host-path.ts';
import { BlockingFiles } from '../../../src/system/blocking-files.ts';

describe('paths on the host', () => {
  const files = new BlockingFiles();
  let root = '';

  before(async () => {
    root = await mkdtemp(join(tmpdir(), 'host-path-'));
    await mkdir(join(root, 'data/kubelet/pods'), { recursive: true });
    await mkdir(join(root, 'var/lib'), { recursive: true });
    await symlink('/data/kubelet', join(root, 'var/lib/kubelet'));
    await symlink('./../var/lib/kubelet/pods', join(root, 'var/relative'));
    await symlink('loop-b', join(root, 'loop-a'));
    await symlink('loop-a', join(root, 'loop-b'));
  });
  after(async () => {
    await files.close();
    await rm(root, { recursive: true });
  });

  const resolve = (path: string): Promise<string> => resolveHostPath(files, root, path);

  it("resolves an absolute link against the host's root, not ours", async () => {
    expect(await resolve('/var/lib/kubelet/pods/x')).to.equal('/data/kubelet/pods/x');
  });

  it('resolves relative links with dots', async () => {
    expect(await resolve('/var/relative/x')).to.equal('/data/kubelet/pods/x');
  });

  it('leaves the last component, and what does not exist, as given', async () => {
    expect(await resolve('/var/lib/kubelet')).to.equal('/var/lib/kubelet');
    expect(await resolve('/none/such/../path//x/')).to.equal('/none/path/x');
  });

  it('follows the last component too where it is asked to', async () => {
    expect(await followHostPath(files, root, '/var/lib/kubelet')).to.equal('/data/kubelet');
    expect(await followHostPath(files, root, '/var/lib/kubelet/none')).to.equal('/data/kubelet/none');
    expect(await followHostPath(files, '', '/var/lib/kubelet')).to.equal('/var/lib/kubelet');
  });

  it('ends a loop of links', async () => {
    expect(await resolve('/loop-a/x').catch((error: Error) => error.message)).to.match(/symlinks/);
  });
});
