/** Fields that some shared caches obey instead of `Cache-Control`: RFC 9213 and its forerunners, nginx. Lower case. */
export const SHARED_CACHE_FIELDS: readonly string[] = [
  'cdn-cache-control',
  'cloudflare-cdn-cache-control',
  'surrogate-control',
  'edge-control',
  'x-accel-expires',
]

/** Whether a field, by its folded name, is read by shared caches only. */
export function isForSharedCaches(folded: string): boolean {
  return SHARED_CACHE_FIELDS.includes(folded)
}

/** Bytes of a value worth reading; nobody means anything by more. */
const MOST_READ = 1_024

/**
 * A `Cache-Control` value under which no shared cache keeps the answer to one user for another; undefined when the value
 * says nothing at all. RFC 9111 §3.5 holds back answers to requests with `Authorization` only, and ours come with a cookie.
 */
export function privateCacheControl(value: string): string | undefined {
  if (value.length > MOST_READ) return 'no-store'
  const directives = (value.match(DIRECTIVE) ?? []).map((directive) => directive.trim()).filter(Boolean)
  if (directives.length === 0) return undefined
  const kept = directives.filter((directive) => !SHARED.test(directive))
  if (!kept.some((directive) => PRIVATE.test(directive))) kept.push('private')
  else if (kept.length === directives.length && !value.includes('"')) return value
  return kept.join(', ')
}

/** Commas within a quoted string separate nothing (RFC 9110 §5.6.4). */
const DIRECTIVE = /(?:[^,"]|"(?:[^"\\]|\\.)*")+/g

/** What lets a shared cache keep the answer. A `private` with names of fields is about these alone (RFC 9111 §5.2.2.7). */
const SHARED = /^(?:(?:public|s-maxage)\s*(?:=|$)|private\s*=)/i
const PRIVATE = /^(?:private|no-store)$/i
