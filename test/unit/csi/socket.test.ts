/** Real sockets in a temporary folder. */
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { execa } from 'execa';
import { prepareSocketPath, socketPath } from '../../../src/csi/socket.ts';
import { DriverError } from '../../../src/errors.ts';

describe('the endpoint', () => {
  it('may be written in three ways', () => {
    for (const endpoint of ['unix:///run/x/csi.sock', 'unix:/run/x/csi.sock', '/run/x/csi.sock']) {
      expect(socketPath(endpoint), endpoint).to.equal('/run/x/csi.sock');
    }
  });

  it('is refused when it cannot be a socket', () => {
    for (const endpoint of [
      '',
      'csi.sock',
      'unix:csi.sock',
      'unix://csi.sock',
      'tcp://127.0.0.1:1',
      `/${'x'.repeat(107)}`,
    ]) {
      expect(() => socketPath(endpoint), endpoint).to.throw(DriverError, /CSI endpoint/);
    }
  });
});

describe('a socket file that is already there', () => {
  let folder: string;
  let path: string;
  let server: Server | undefined;

  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'csi-socket-'));
    path = join(folder, 'csi.sock');
  });
  afterEach(() => {
    server?.close();
    server = undefined;
    rmSync(folder, { recursive: true });
  });

  it('does not matter when there is none, nor its folder', async () => {
    await prepareSocketPath(path);
    await prepareSocketPath(join(folder, 'a', 'b', 'csi.sock'));
    expect(existsSync(join(folder, 'a', 'b'))).to.equal(true);
  });

  it('is removed when its process died', async () => {
    // Killed, so that nobody unlinks the socket.
    const script = `require('net').createServer().listen(${JSON.stringify(path)}, () => process.kill(process.pid, 'SIGKILL'))`;
    await execa(process.execPath, ['-e', script], { reject: false });
    expect(existsSync(path)).to.equal(true);
    await prepareSocketPath(path);
    expect(existsSync(path)).to.equal(false);
  });

  it('stays when somebody listens', async () => {
    server = createServer();
    await new Promise<void>((resolve) => server?.listen(path, resolve));
    await expectRefusal(/another process listens/);
    expect(existsSync(path)).to.equal(true);
  });

  it('stays when it is no socket', async () => {
    writeFileSync(path, 'data');
    await expectRefusal(/not a socket/);
    expect(existsSync(path)).to.equal(true);
  });

  async function expectRefusal(pattern: RegExp): Promise<void> {
    const error = await prepareSocketPath(path).then(
      () => undefined,
      (caught: unknown) => caught,
    );
    expect(error).to.be.instanceOf(DriverError).with.property('message').that.matches(pattern);
    expect(error).to.have.property('code', 'FAILED_PRECONDITION');
  }
});
