/**
 * The private LVM_SYSTEM_DIR of our LVM commands: `<runDir>/lvm/<vg>/lvm.conf`, which is the host's configuration with
 *  - a `global_filter` that accepts this VG's PVs and nothing else (a scan of a suspended gate hangs for ever);
 *  - `use_aio=0`, `archive=0`: each made commands several times as quick (measured; neither works through --config);
 *  - the report and log settings that our parsers count on.
 * Beside it a lvmlocal.conf with nothing but the host's system id and the like: LVM lets that file overrule lvm.conf, so a
 * filter that an administrator has put there would take the place of ours. What else it says is in lvm.conf already, as
 * `lvmconfig` gives both.
 * Backups still go to the host's own folder, and the lock files are the host's: its LVM and ours exclude each other.
 *
 * The devices file: LVM ignores every filter while one is in force (lib/filters/filter-regex.c), so ours turns it off
 * and takes a PV only if the host's file, where it is in force, lists it.
 *
 * The PVs are found by one scan (the "bootstrap") of all devices that sysfs shows to be harmless: at start, and again
 * whenever a PV is missing, because vgextend may have added one that our filter does not know yet.
 */
import type { Commands } from '../system/commands.ts';
import { log } from '../system/context.ts';
import type { Files } from '../system/files.ts';
import { step } from '../system/step.ts';
import { devicePath, scannableDevices, stableNames } from './block-devices.ts';
import { Coalesced } from './coalesced.ts';
import { toLvmError } from './errors.ts';
import { acceptOnly, formatLvmConf, getSetting, isFilterable, parseLvmConf, setSetting } from './lvm-conf.ts';
import { parsePvReport, pvReportArguments, type ReportedPv } from './report.ts';
import { LvmError } from './types.ts';

export interface LvmEnvironmentOptions {
  readonly commands: Commands;
  readonly files: Files;
  readonly vgName: string;
  /** Volatile folder on the host. */
  readonly runDir: string;
  /** Prefix under which the host's files are seen; '' when this process is in the host's mount namespace. */
  readonly hostRoot: string;
  /** The host's own LVM_SYSTEM_DIR; /etc/lvm when absent. */
  readonly hostLvmDir?: string;
  /** Awaited with the kernel names of the PVs' devices whenever they were looked for, before any LV is activated. */
  readonly onDevices?: (names: readonly string[]) => Promise<void>;
}

export interface PreparedEnvironment {
  /** For CommandRequest.env. */
  readonly variables: Readonly<Record<string, string>>;
  /** The names that the filter accepts. */
  readonly paths: readonly string[];
  /** Of the PVs that were found. */
  readonly pvUuids: readonly string[];
}

/** The section that names this host to LVM. */
const LOCAL = 'local';

const SETTINGS: Readonly<Record<string, string>> = {
  'devices/hints': '"none"',
  'devices/use_devicesfile': '0',
  'devices/issue_discards': '0',
  'global/use_aio': '0',
  'global/units': '"b"',
  'backup/backup': '1',
  'backup/archive': '0',
  'report/output_format': '"basic"',
  'report/compact_output': '0',
  'report/compact_output_cols': '""',
  'report/binary_values_as_numeric': '0',
  'report/list_item_separator': '","',
  'report/time_format': '"%s"',
  'log/report_command_log': '0',
  'log/silent': '0',
  'log/verbose': '0',
  'log/command_names': '0',
};

export class LvmEnvironment {
  readonly #options: LvmEnvironmentOptions;
  readonly #hostLvmDir: string;
  readonly #folder: string;
  readonly #build: Coalesced<PreparedEnvironment>;
  #prepared: PreparedEnvironment | undefined;

  constructor(options: LvmEnvironmentOptions) {
    this.#options = options;
    this.#hostLvmDir = options.hostLvmDir ?? '/etc/lvm';
    this.#folder = `${options.runDir}/lvm/${options.vgName}`;
    this.#build = new Coalesced(async () => {
      this.#prepared = await this.#prepare();
      return this.#prepared;
    }, 0);
  }

  /** The environment, made at the first call. @throws LvmError as `refresh` */
  async get(): Promise<PreparedEnvironment> {
    return this.#prepared ?? (await this.#build.read());
  }

  /**
   * Looks for the VG's PVs again.
   * @returns the environment; the object that `get` gave before when nothing has changed
   * @throws LvmError vg-not-found, vg-inaccessible, lvm-missing…
   */
  async refresh(): Promise<PreparedEnvironment> {
    return await this.#build.read({ fresh: true });
  }

  async #prepare(): Promise<PreparedEnvironment> {
    const { files, hostRoot, vgName } = this.#options;
    const hostConf = await this.#hostConf();
    const devices = await scannableDevices(files, hostRoot);
    const variables = {
      LVM_SUPPRESS_FD_WARNINGS: '1',
      // LVM waits for udevd to name its devices; where none runs it would wait for ever and must do it itself.
      ...((await files.stat(`${hostRoot}/run/udev/control`)) === undefined ? { DM_DISABLE_UDEV: '1' } : {}),
    };
    const scanFolder = `${this.#folder}/scan`;
    await this.#write(scanFolder, hostConf, devices.map(devicePath).filter(isFilterable));
    const pvs = await this.#listed(await this.#scan({ ...variables, LVM_SYSTEM_DIR: scanFolder }));
    const numbers = new Set(pvs.map((pv) => pv.deviceNumber));
    const found = devices.filter((device) => numbers.has(device.deviceNumber));
    if (found.length === 0) throw new LvmError('vg-not-found', `no PV of volume group "${vgName}" was found`);
    await this.#options.onDevices?.(found.map(({ name }) => name));
    const paths = await stableNames(files, hostRoot, found, isFilterable);
    const pvUuids = pvs.filter((pv) => pv.deviceNumber !== undefined).map((pv) => pv.uuid);
    const before = this.#prepared;
    if (before !== undefined && String(before.paths) === String(paths) && String(before.pvUuids) === String(pvUuids))
      return before;
    await this.#write(this.#folder, hostConf, paths);
    log().info({ vgName, devices: paths }, 'LVM commands see these devices only');
    return { variables: { ...variables, LVM_SYSTEM_DIR: this.#folder }, paths, pvUuids };
  }

  /** The VG's PVs among all harmless devices. */
  async #scan(env: Readonly<Record<string, string>>): Promise<ReportedPv[]> {
    const { commands, vgName } = this.#options;
    try {
      const args = pvReportArguments(vgName);
      const { stdout } = await commands.run({ file: 'lvm', args, program: 'vgs', kind: 'read', env });
      return parsePvReport(stdout);
    } catch (error) {
      throw toLvmError(error);
    }
  }

  /** Without those that the host's devices file, if it is in force, does not list. */
  async #listed(pvs: readonly ReportedPv[]): Promise<readonly ReportedPv[]> {
    const { files, hostRoot, vgName } = this.#options;
    const folder = `${this.#hostLvmDir}/devices`;
    if ((await files.stat(`${hostRoot}${folder}/system.devices`)) === undefined) return pvs;
    const settings = parseLvmConf(await this.#lvmconfig(['--type', 'full', 'devices']));
    if (getSetting(settings, 'devices/use_devicesfile') !== '1') return pvs;
    const name = getSetting(settings, 'devices/devicesfile')?.replaceAll('"', '') ?? 'system.devices';
    const text = await files.readText(`${hostRoot}${folder}/${name}`);
    const ids = new Set(Array.from(text.matchAll(/\bPVID=(\w+)/g), (match) => match[1]));
    const unlisted = pvs.filter((pv) => !ids.has(pv.uuid.replaceAll('-', '')));
    if (unlisted.length > 0)
      log().warn({ vgName, pvUuids: unlisted.map((pv) => pv.uuid) }, 'PVs not in the devices file of LVM are left out');
    return pvs.filter((pv) => !unlisted.includes(pv));
  }

  #conf(hostConf: string, paths: readonly string[]): string {
    const conf = parseLvmConf(hostConf);
    // LVM takes it from lvmlocal.conf only.
    conf.delete(LOCAL);
    const hostFilter = getSetting(conf, 'devices/global_filter');
    // Both filters count. The host's global one goes where its other one was; most hosts have none at all.
    if (hostFilter !== undefined) setSetting(conf, 'devices/filter', hostFilter);
    setSetting(conf, 'devices/global_filter', acceptOnly(paths));
    for (const [path, value] of Object.entries(SETTINGS)) setSetting(conf, path, value);
    const ownDefaults = {
      'backup/backup_dir': 'backup',
      'backup/archive_dir': 'archive',
      'config/profile_dir': 'profile',
    };
    for (const [path, name] of Object.entries(ownDefaults)) {
      if (getSetting(conf, path) === undefined) setSetting(conf, path, `"${this.#hostLvmDir}/${name}"`);
    }
    return formatLvmConf(conf);
  }

  async #hostConf(): Promise<string> {
    return await this.#lvmconfig(['--type', 'current']);
  }

  /** Opens no device. */
  async #lvmconfig(args: readonly string[]): Promise<string> {
    const env = { LVM_SYSTEM_DIR: this.#hostLvmDir, LVM_SUPPRESS_FD_WARNINGS: '1' };
    try {
      const program = 'lvmconfig';
      const request = { file: 'lvm', args: [program, ...args], program, kind: 'read', env } as const;
      return (await this.#options.commands.run(request)).stdout;
    } catch (error) {
      throw toLvmError(error);
    }
  }

  async #write(folder: string, hostConf: string, paths: readonly string[]): Promise<void> {
    const { files, hostRoot } = this.#options;
    const local = parseLvmConf(hostConf).get(LOCAL);
    const localConf = formatLvmConf(new Map(local === undefined ? [] : [[LOCAL, local]]));
    await step('lvm-environment-write', async () => {
      await files.mkdir(`${hostRoot}${folder}`, { recursive: true, mode: 0o700 });
      await files.writeDurably(`${hostRoot}${folder}/lvm.conf`, this.#conf(hostConf, paths), { mode: 0o600 });
      await files.writeDurably(`${hostRoot}${folder}/lvmlocal.conf`, localConf, { mode: 0o600 });
    });
  }
}
