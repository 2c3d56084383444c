/** Portals ("address:port", IPv6 in brackets) and iSCSI names, checked before they become part of a path or a command line. */
import { IscsiError } from './errors.ts';

export interface Portal {
  /** IP address or host name, without brackets: the form that open-iscsi's files and sysfs use. */
  readonly address: string;
  readonly port: number;
}

/** @throws IscsiError other */
export function parsePortal(portal: string): Portal {
  const match = /^(?:\[([0-9A-Fa-f:.%a-z]+)\]|([A-Za-z0-9.-]+)):([0-9]{1,5})$/.exec(portal);
  const address = match?.[1] ?? match?.[2];
  const port = Number(match?.[3]);
  if (address === undefined || port < 1 || port > 65_535) {
    throw new IscsiError('other', `portal "${portal}" is not "address:port" (IPv6 addresses in brackets)`);
  }
  return { address, port };
}

export function formatPortal({ address, port }: Portal): string {
  return address.includes(':') ? `[${address}]:${port}` : `${address}:${port}`;
}

/** RFC 7143 section 4.2.7: at most 223 bytes; these characters are safe in a file name and in an argument. */
const ISCSI_NAME = /^(iqn|eui|naa)\.[A-Za-z0-9.:_-]{1,219}$/;

export function isIscsiName(name: string): boolean {
  return ISCSI_NAME.test(name);
}

/** @throws IscsiError other */
export function checkTargetName(targetIqn: string): void {
  if (!isIscsiName(targetIqn)) throw new IscsiError('other', `"${targetIqn}" is not an iSCSI target name`);
}
