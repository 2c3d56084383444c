/** The host's own iSCSI name, from initiatorname.iscsi. */
import { followHostPath } from '../../filesystem/host-path.ts';
import type { Files } from '../../system/files.ts';
import { errorCode, IscsiError, OPEN_ISCSI_PACKAGE } from './errors.ts';
import { isIscsiName } from './portal.ts';

const GENERATE = 'echo "InitiatorName=$(iscsi-iname)"';

/**
 * @param file path on the host, for messages
 * @throws IscsiError missing when the file is not there or holds no name, other when it holds several or a malformed one
 */
export async function readInitiatorName(files: Files, hostRoot: string, file: string): Promise<string> {
  let text: string;
  try {
    text = await files.readText(`${hostRoot}${await followHostPath(files, hostRoot, file)}`);
  } catch (error) {
    if (errorCode(error) !== 'ENOENT') throw error;
    throw new IscsiError('missing', `${file} is not there; to do: ${OPEN_ISCSI_PACKAGE}`, { cause: error });
  }
  return parseInitiatorName(text, file);
}

/** @throws IscsiError as readInitiatorName */
export function parseInitiatorName(text: string, file: string): string {
  const names = new Set<string>();
  for (const line of text.split('\n')) {
    const name = /^\s*InitiatorName\s*=\s*(.*?)\s*$/.exec(line)?.[1];
    if (name !== undefined) names.add(name);
  }
  const [name, ...others] = names;
  if (name === undefined) {
    // Debian ships "GenerateName=yes"; the first start of iscsid replaces it.
    const hint = /^\s*GenerateName\s*=\s*yes/m.test(text) ? 'systemctl start iscsid' : `${GENERATE} > ${file}`;
    throw new IscsiError('missing', `${file} holds no InitiatorName; to do: ${hint}`);
  }
  if (others.length > 0) {
    throw new IscsiError(
      'other',
      `${file} holds several names (${[...names].join(', ')}); to do: leave exactly one InitiatorName line`,
    );
  }
  if (!isIscsiName(name)) {
    throw new IscsiError(
      'other',
      `${file} holds the malformed InitiatorName "${name}"; to do: ${GENERATE} > ${file}, then restart iscsid`,
    );
  }
  return name;
}
