import assert from 'node:assert/strict'

/** One secret found where it must not be. */
export type Leak = {
  /** Name of the haystack. */
  readonly where: string
  /** Kind and first six characters: enough to know it, too little to use it. */
  readonly what: string
}

/**
 * Fails when a secret, or anything that looks like a JWT, stands in a haystack: as it is, percent-encoded, in base64, or
 * by a JWT's payload or signature alone. `allowJwt` lets unknown JWTs pass (not the named secrets).
 */
export function assertNoSecrets(
  haystacks: Record<string, string>,
  secrets: readonly string[],
  options: { allowJwt?: boolean } = {},
): void {
  const leaks = findSecrets(haystacks, secrets, options)
  const report = leaks.map(({ where, what }) => `  ${what} in ${where}`).join('\n')
  assert.ok(leaks.length === 0, `${leaks.length} leaked secret(s):\n${report}`)
}

/** Every secret in every haystack. Secrets shorter than 8 characters are a mistake of the test and throw. */
export function findSecrets(
  haystacks: Record<string, string>,
  secrets: readonly string[],
  { allowJwt = false }: { allowJwt?: boolean } = {},
): Leak[] {
  const needles = secrets.flatMap(needlesOf)
  return Object.entries(haystacks).flatMap(([where, text]) => {
    const known = needles.filter(({ needle }) => text.includes(needle)).map(({ what }) => ({ where, what }))
    const leaks = [...new Map(known.map((leak) => [leak.what, leak])).values()]
    const jwt = allowJwt || leaks.length > 0 ? undefined : JWT.exec(text)?.[0]
    return jwt === undefined ? leaks : [...leaks, { where, what: `an unknown JWT (${jwt.slice(0, 6)}…)` }]
  })
}

/** Base64url of `{"` and enough after it to be the header of a token rather than a word. */
const JWT = /eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{4,}/

function needlesOf(secret: string): { needle: string; what: string }[] {
  if (secret.length < 8) throw new Error('a secret of fewer than 8 characters would be found by chance')
  const isJwt = secret.startsWith('eyJ')
  const what = `${isJwt ? 'a JWT' : 'an opaque secret'} (${secret.slice(0, 6)}…)`
  const [, payload = '', signature = ''] = isJwt ? secret.split('.') : []
  const base64 = Buffer.from(secret).toString('base64').replace(/=+$/, '').slice(0, -1)
  const base64url = Buffer.from(secret).toString('base64url').slice(0, -1)
  return [secret, encodeURIComponent(secret), base64, base64url, payload, signature]
    .filter((needle) => needle.length >= 8)
    .map((needle) => ({ needle, what }))
}
