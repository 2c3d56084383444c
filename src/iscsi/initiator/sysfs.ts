/** Reading sysfs of the host: objects there vanish at any time, and only that is ever taken for "absent". */
import type { Files } from '../../system/files.ts';
import { errorCode, isGone } from './errors.ts';
import { PATIENT } from './poll.ts';

export class Sysfs {
  readonly files: Files;
  readonly root: string;

  /** @param hostRoot prefix under which the host's root is seen, '' when it is our own */
  constructor(files: Files, hostRoot: string) {
    this.files = files;
    this.root = `${hostRoot}/sys`;
  }

  path(relative: string): string {
    return `${this.root}/${relative}`;
  }

  /** Trimmed text; undefined when the object has gone. */
  async attribute(relative: string): Promise<string | undefined> {
    try {
      return (await this.files.readText(this.path(relative), PATIENT)).trim();
    } catch (error) {
      if (isGone(error)) return undefined;
      throw error;
    }
  }

  /** As attribute; also undefined where the kernel has no value: "", "(null)", or EINVAL for a page that it never read. */
  async value(relative: string): Promise<string | undefined> {
    try {
      const text = await this.attribute(relative);
      return text === '' || text === '(null)' ? undefined : text;
    } catch (error) {
      if (errorCode(error) === 'EINVAL') return undefined;
      throw error;
    }
  }

  /** [] when the folder has gone. */
  async names(relative: string): Promise<string[]> {
    try {
      return await this.files.readdir(this.path(relative), PATIENT);
    } catch (error) {
      if (isGone(error)) return [];
      throw error;
    }
  }

  /**
   * A symlink's text; undefined when the object has gone. Not realpath: in a pod that would leave the host's root, since
   * /proc/1/root itself reads as a link to "/".
   */
  async link(relative: string): Promise<string | undefined> {
    try {
      return await this.files.readlink(this.path(relative), PATIENT);
    } catch (error) {
      if (isGone(error)) return undefined;
      throw error;
    }
  }
}
