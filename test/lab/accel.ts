import { spawn } from 'node:child_process';
import { constants } from 'node:fs';
import { access, mkdir, readFile, writeFile } from 'node:fs/promises';
import { release } from 'node:os';
import path from 'node:path';
import { execa } from 'execa';
import { cacheFolder, contentHash } from './cache.ts';
import { LabError } from './errors.ts';
import type { Image } from './image.ts';
import type { Progress } from './progress.ts';

export type Accelerator = 'kvm' | 'tcg';

const PROBE_TIMEOUT_MS = 20_000;

/**
 * KVM where a kernel really boots under it, software emulation elsewhere. That /dev/kvm opens proves nothing: on some
 * clouds a stock kernel hangs under nested KVM. So the image's kernel is booted once for each boot of this machine, and
 * the answer kept. `LAB_ACCEL=kvm|tcg` overrides.
 */
export async function chooseAccelerator(image: Image, progress: Progress): Promise<Accelerator> {
  const override = process.env['LAB_ACCEL'];
  if (override === 'kvm' || override === 'tcg') return override;
  if (override) throw new LabError(`LAB_ACCEL is "${override}": allowed are kvm and tcg`);
  const usable = await access('/dev/kvm', constants.R_OK | constants.W_OK).then(
    () => true,
    () => false,
  );
  if (!usable) return 'tcg';
  const bootId = await readFile('/proc/sys/kernel/random/boot_id', 'utf8').catch(() => '');
  const { stdout: qemu } = await execa('qemu-system-x86_64', ['--version']);
  const answerFile = path.join(
    cacheFolder(),
    'accel',
    contentHash({ bootId, kernel: release(), qemu, image: image.hash }),
  );
  const known = await readFile(answerFile, 'utf8').catch(() => '');
  if (known === 'kvm' || known === 'tcg') return known;
  const answer = await progress.step('trying whether KVM boots a kernel here', () => probeKvm(image));
  if (answer === 'tcg') progress.line('it does not: machines run in software emulation (LAB_ACCEL overrides)');
  await mkdir(path.dirname(answerFile), { recursive: true });
  await writeFile(answerFile, answer);
  return answer;
}

async function probeKvm(image: Image): Promise<Accelerator> {
  const qemu = spawn(
    // Bounded by itself too: we may be killed meanwhile.
    'timeout',
    [
      ['--signal=KILL', String(PROBE_TIMEOUT_MS / 1000 + 5), 'qemu-system-x86_64'],
      ['-machine', 'q35', '-accel', 'kvm', '-cpu', 'host', '-m', '512', '-display', 'none', '-nodefaults'],
      ['-no-user-config', '-no-reboot', '-serial', 'stdio', '-kernel', image.kernel, '-initrd', image.initrd],
      // Far enough: the kernel has started every subsystem, unpacked the initrd and run a program.
      ['-append', 'console=ttyS0 panic=-1 break=top'],
    ].flat(),
    { stdio: ['ignore', 'pipe', 'ignore'] },
  );
  try {
    return await new Promise<Accelerator>((resolve) => {
      const timer = setTimeout(() => resolve('tcg'), PROBE_TIMEOUT_MS);
      timer.unref();
      let output = '';
      qemu.stdout.on('data', (chunk) => {
        output += chunk;
        if (/Loading, please wait|Spawning shell|\(initramfs\)/.test(output)) resolve('kvm');
      });
      qemu.once('error', () => resolve('tcg'));
      qemu.once('close', () => resolve('tcg'));
    });
  } finally {
    // timeout passes a TERM on, and QEMU ends in order.
    qemu.kill('SIGTERM');
  }
}
