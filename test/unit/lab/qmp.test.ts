import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { expect } from 'chai';
import { accepts, LineSplitter, parseQmpMessage, QmpError, qmpCommand } from '../../lab/qmp.ts';

describe('lab QMP', () => {
  it('tells the four kinds of message apart', () => {
    expect(parseQmpMessage('{"QMP": {"version": {}, "capabilities": []}}')).to.deep.equal({ kind: 'greeting' });
    expect(parseQmpMessage('{"return": {"status": "running"}, "id": 3}')).to.deep.equal({
      kind: 'return',
      id: 3,
      value: { status: 'running' },
    });
    expect(parseQmpMessage('{"id": 4, "error": {"class": "GenericError", "desc": "no"}}')).to.deep.equal({
      kind: 'error',
      id: 4,
      errorClass: 'GenericError',
      description: 'no',
    });
    expect(parseQmpMessage('{"event": "STOP", "data": {}, "timestamp": {}}')).to.deep.equal({
      kind: 'event',
      event: 'STOP',
      data: {},
    });
    expect(() => parseQmpMessage('{"other": 1}')).to.throw('not a QMP message');
  });

  it('waits for a monitor whose socket is there and does not listen yet', async () => {
    const folder = await mkdtemp(path.join(tmpdir(), 'lab-qmp-'));
    const socket = path.join(folder, 'qmp');
    try {
      expect(await accepts(socket)).to.equal(false);
      // A socket's file without a listener, which is what bind(2) makes: what a killed server leaves is the same.
      const listen = `require('node:net').createServer().listen(${JSON.stringify(socket)}, () => process.kill(process.pid, 'SIGKILL'))`;
      spawnSync(process.execPath, ['-e', listen]);
      expect(existsSync(socket)).to.equal(true);
      expect(await accepts(socket)).to.equal(false);
    } finally {
      await rm(folder, { recursive: true });
    }
  });

  it('puts lines together from pieces', () => {
    const splitter = new LineSplitter();
    expect(splitter.push('{"a"')).to.deep.equal([]);
    expect(splitter.push(':1}\r\n{"b":2}\n{')).to.deep.equal(['{"a":1}', '{"b":2}']);
    expect(splitter.push('}\n')).to.deep.equal(['{}']);
  });

  describe('against a monitor', () => {
    let folder: string;
    let server: Server;
    const socket = (): string => path.join(folder, 'qmp');

    beforeEach(async () => {
      folder = await mkdtemp(path.join(tmpdir(), 'lab-qmp-'));
    });

    afterEach(async () => {
      server.close();
      await rm(folder, { recursive: true });
    });

    /** A monitor that answers each command with what `answer` gives, or hangs up. */
    async function listen(answer: (command: string) => object | undefined): Promise<void> {
      server = createServer((client) => {
        client.write('{"QMP": {}}\r\n');
        const splitter = new LineSplitter();
        client.on('data', (chunk) => {
          for (const line of splitter.push(String(chunk))) {
            const { execute, id } = JSON.parse(line) as { execute: string; id: number };
            const reply = execute === 'qmp_capabilities' ? { return: {} } : answer(execute);
            if (!reply) client.destroy();
            else client.write(`{"event": "NOISE", "data": {}}\r\n${JSON.stringify({ ...reply, id })}\r\n`);
          }
        });
      });
      await new Promise<void>((resolve) => server.listen(socket(), resolve));
    }

    it('returns what QEMU returns', async () => {
      await listen((command) => ({ return: { command } }));
      expect(await qmpCommand(socket(), 'query-status')).to.deep.equal({ command: 'query-status' });
    });

    it('throws what QEMU refuses, with the command and the class', async () => {
      await listen(() => ({ error: { class: 'DeviceNotFound', desc: "Device 'x' not found" } }));
      const error = await qmpCommand(socket(), 'set_link', { name: 'x' }).catch((caught: unknown) => caught);
      expect(error).to.be.instanceOf(QmpError);
      expect(error).to.include({ errorClass: 'DeviceNotFound', message: "QMP set_link: Device 'x' not found" });
    });

    it('throws when the machine ends under it, or is not there', async () => {
      await listen(() => undefined);
      const ended = await qmpCommand(socket(), 'cont').catch((caught: unknown) => caught);
      expect(ended).to.be.instanceOf(QmpError).with.property('errorClass', 'Disconnected');
      const absent = await qmpCommand(`${socket()}.absent`, 'cont').catch((caught: unknown) => caught);
      expect(absent).to.be.instanceOf(QmpError).with.property('errorClass', 'Disconnected');
    });
  });
});
