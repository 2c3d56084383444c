/**
 * Text in LVM tags. LVM takes `[A-Za-z0-9_+.\-/=!:#&]` (lvm(8), "TAGS"; lib/misc/lvm-string.c, `validate_tag`), and
 * neither `%` nor `,` nor a space, so percent-encoding is impossible: every other byte of the UTF-8 form, and `&`
 * itself, becomes `&` and two lower-case hex digits.
 */
import { LvmError } from './types.ts';

/** LVM itself takes 8,000 characters and more (measured); every byte costs VG metadata, so ours end here. */
export const MAX_TAG_LENGTH = 1024;

const PLAIN = /^[A-Za-z0-9_+.\-/=!:#]$/;
const TAG = /^[A-Za-z0-9_+.\-/=!:#&]+$/;

/** Any text (lone surrogates become U+FFFD) as characters that LVM takes in a tag. Never longer than 3 times its UTF-8 bytes. */
export function escapeTagValue(text: string): string {
  let escaped = '';
  for (const byte of Buffer.from(text, 'utf8')) {
    const character = String.fromCharCode(byte);
    escaped += PLAIN.test(character) ? character : `&${byte.toString(16).padStart(2, '0')}`;
  }
  return escaped;
}

/** The text that was escaped, or undefined when `value` is not something that `escapeTagValue` makes. */
export function unescapeTagValue(value: string): string | undefined {
  const bytes: number[] = [];
  for (let index = 0; index < value.length; index += 1) {
    const character = value.charAt(index);
    if (character === '&') {
      const digits = value.slice(index + 1, index + 3);
      if (!/^[0-9a-f]{2}$/.test(digits)) return undefined;
      bytes.push(Number.parseInt(digits, 16));
      index += 2;
    } else if (PLAIN.test(character)) {
      bytes.push(character.charCodeAt(0));
    } else {
      return undefined;
    }
  }
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(Uint8Array.from(bytes));
  } catch {
    return undefined;
  }
}

/**
 * Tags for one LVM command line, without duplicates.
 * @throws LvmError invalid for a tag that LVM would refuse (or take for an option), or that is too long
 */
export function checkedTags(tags: readonly string[]): string[] {
  for (const tag of tags) {
    if (!TAG.test(tag) || tag.startsWith('-'))
      throw new LvmError('invalid', `tag ${JSON.stringify(tag)} has characters that LVM does not take`);
    if (tag.length > MAX_TAG_LENGTH)
      throw new LvmError('invalid', `tag ${tag.slice(0, 64)}… has ${tag.length} characters, at most ${MAX_TAG_LENGTH}`);
  }
  return [...new Set(tags)];
}
