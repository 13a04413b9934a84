import type { HeaderTemplate } from '../../config/config.ts'
import type { UserClaims } from '../../session/bff-session.ts'

/** A route's header with its placeholders already found. */
export type CompiledTemplate = {
  readonly name: string
  /** The header's value; undefined when a claim it names is absent, which leaves the header out. */
  value(claims: UserClaims | undefined): string | undefined
}

/** Bytes of a header value past which it is left out: more would break the upstream's own limit for all headers. */
const MAX_VALUE_LENGTH = 8192

const PLACEHOLDER = /\{claims\.([^{}]+)\}/

/** Compiles `{claims.NAME}` placeholders; NAME is the claim's whole name, dots included. */
export function compileTemplate({ name, value: text }: HeaderTemplate): CompiledTemplate {
  // Splitting at a capturing group leaves literals at even places and claim names at odd ones.
  const parts = text.split(PLACEHOLDER)
  for (let index = 0; index < parts.length; index += 2) parts[index] = printable(parts[index]!, NOT_PRINTABLE)
  if (parts.length === 1) return { name, value: () => parts[0] }

  function value(claims: UserClaims | undefined): string | undefined {
    let built = ''
    for (let index = 0; index < parts.length; index++) {
      const part = parts[index]!
      const piece = index % 2 === 0 ? part : claimText(claims, part)
      if (piece === undefined) return undefined
      built += piece
    }
    return built.length > MAX_VALUE_LENGTH ? undefined : built
  }
  return { name, value }
}

const NOT_PRINTABLE = /[^\x20-\x7e]/gu
/** The percent sign is encoded too, so that decoding always gives the claim back. */
const NOT_PLAIN = /[^\x20-\x24\x26-\x7e]/gu
/** In a list the comma separates, so an item must not bring its own: `a,admin` is one group and not two. */
const NOT_PLAIN_ITEM = /[^\x20-\x24\x26-\x2b\x2d-\x7e]/gu

/** A claim as header text; a list is joined with commas, an object or an absent claim is undefined. */
function claimText(claims: UserClaims | undefined, name: string): string | undefined {
  const claim = claims && Object.hasOwn(claims, name) ? claims[name] : undefined
  if (!Array.isArray(claim)) return scalarText(claim, NOT_PLAIN)
  const items = claim.map((item) => scalarText(item, NOT_PLAIN_ITEM))
  return items.includes(undefined) ? undefined : items.join(',')
}

function scalarText(claim: unknown, encoded: RegExp): string | undefined {
  if (typeof claim === 'number' || typeof claim === 'boolean') return String(claim)
  return typeof claim === 'string' ? printable(claim, encoded) : undefined
}

/** Percent-encodes as UTF-8: CR, LF and anything else past printable ASCII must not end a header (ASVS 5.0 4.2). */
function printable(text: string, encoded: RegExp): string {
  return text.toWellFormed().replace(encoded, percentEncoded)
}

function percentEncoded(character: string): string {
  return character === ',' ? '%2C' : encodeURIComponent(character)
}
