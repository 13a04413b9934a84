/** ` (did you mean "x"?)` for the known name closest to what was written, or an empty string when none is close. */
export function didYouMean(written: string, known: readonly string[]): string {
  const nearest = nearestName(written, known)
  return nearest === undefined ? '' : ` (did you mean "${nearest}"?)`
}

/** The known name that `written` most likely meant: same letters in another case, or a few typing errors away. */
export function nearestName(written: string, known: readonly string[]): string | undefined {
  const wanted = plain(written)
  const limit = Math.max(1, Math.floor(wanted.length / 3))
  const ranked = known
    .map((name) => ({ name, distance: editDistance(wanted, plain(name)) }))
    .filter(({ distance }) => distance <= limit)
    .sort((a, b) => a.distance - b.distance)
  return ranked[0]?.name
}

/** client_id, client-id and ClientID all mean clientId. */
function plain(name: string): string {
  return name.toLowerCase().replaceAll(/[-_]/g, '').slice(0, 60)
}

/** Damerau-Levenshtein (optimal string alignment): two swapped letters are one error. */
function editDistance(a: string, b: string): number {
  const rows = [Array.from({ length: b.length + 1 }, (_, column) => column)]
  for (let i = 1; i <= a.length; i++) {
    const row = [i]
    for (let j = 1; j <= b.length; j++) {
      const change = a[i - 1] === b[j - 1] ? 0 : 1
      let best = Math.min(rows[i - 1]![j]! + 1, row[j - 1]! + 1, rows[i - 1]![j - 1]! + change)
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) {
        best = Math.min(best, rows[i - 2]![j - 2]! + 1)
      }
      row.push(best)
    }
    rows.push(row)
  }
  return rows[a.length]![b.length]!
}

/** Words of other products for words of ours. */
const SYNONYMS: Readonly<Record<string, string>> = {
  ...{ uri: 'url', redis: 'store', valkey: 'store', idp: 'provider', oidc: 'provider', lifetime: 'timeout' },
}

const belongsTo = (names: readonly string[]) => `it belongs to ${names.join(' or ')}`
const madeOfPublicUrl = 'leave it out: it is publicUrl, basePath and /callback'

/** What others have a key for, by its letters and digits. */
const ADVICE: Readonly<Record<string, string>> = {
  ...Object.fromEntries(
    Object.entries({
      'session.keys': ['cookiesecret', 'sessionsecret', 'secretkey', 'encryptionkey'],
      'provider.issuer': ['issuerurl', 'oidcissuerurl', 'authority', 'discoveryurl'],
      'provider.clientAuth.secret': ['clientsecretfile'],
      'session.store.url': ['redisconnectionurl'],
      routes: ['upstreams', 'backends', 'locations', 'apis'],
      'routes[].upstream': ['target', 'backend', 'proxypass', 'url', 'uri'],
      'routes[].path': ['prefix', 'pathprefix', 'location', 'match'],
      publicUrl: ['baseurl', 'externalurl'],
      listen: ['httpaddress', 'port', 'bind', 'address'],
      'admin.listen': ['metricsaddress', 'metricsport', 'adminport'],
      trustProxy: ['trustedproxies', 'reverseproxy'],
      basePath: ['proxyprefix'],
      allowedOrigins: ['cors', 'corsorigins'],
    }).flatMap(([name, others]) => others.map((other) => [other, belongsTo([name])])),
  ),
  ...{ redirecturl: madeOfPublicUrl, redirecturi: madeOfPublicUrl, callbackurl: madeOfPublicUrl },
  loglevel: 'set the environment variable LOG_LEVEL',
  pkce: 'leave it out: PKCE with S256 is always used',
  stripprefix: 'write rewrite: /, which takes the place of the matched path',
}

/** What to do about a key that is not known where it stands. */
export type KeyAdvice = {
  readonly text: string
  /** The field that it most likely is. */
  readonly home?: string
}

/**
 * Where a key is known that is not known where it stands: under the same name elsewhere, as the words of a longer name
 * (`cookieName` for `session.cookie.name`), or by what it is called elsewhere. The nearest places come first, three at most.
 */
export function adviceFor(
  path: readonly (string | number)[],
  known: readonly string[],
): KeyAdvice | undefined {
  const key = String(path.at(-1))
  const wanted = wordsOf(key)
  const homes = known.filter((name) => {
    const steps = name.replaceAll('[]', '').split('.')
    const own = steps.at(-1)!
    if (own === key) return true
    const whole = steps.flatMap(wordsOf)
    const isSaid = wordsOf(own).every((word) => wanted.includes(word))
    return wanted.length > 1 && isSaid && wanted.every((word) => whole.includes(word))
  })
  const near = Math.max(0, ...homes.map((name) => sharedSteps(name, path)))
  const depth = (name: string) => name.split('.').length
  const found = homes
    .filter((name) => sharedSteps(name, path) >= near)
    .sort((a, b) => depth(a) - depth(b))
    .slice(0, 3)
  const [home] = found
  const isExact = found.some((name) => name.split('.').at(-1) === key)
  // Words may lead to several places; the shortest name is meant.
  if (home !== undefined) return { home, text: belongsTo(isExact ? found : [home]) }
  const text = entryOf(ADVICE, plain(key))
  return text === undefined ? undefined : { text, ...homeIn(text) }
}

function homeIn(text: string): { home?: string } {
  const [, home] = /^it belongs to (\S+)$/.exec(text) ?? []
  return home === undefined ? {} : { home }
}

function sharedSteps(name: string, path: readonly (string | number)[]): number {
  const steps = name.replaceAll('[]', '.[]').split('.')
  return steps.findIndex((step, index) => step !== (typeof path[index] === 'number' ? '[]' : path[index]))
}

/** A key of a file may be `constructor`, which every object has. */
function entryOf(table: Readonly<Record<string, string>>, key: string): string | undefined {
  return Object.hasOwn(table, key) ? table[key] : undefined
}

/** Our words for others', in the singular, because others name lists so. */
function wordsOf(name: string): string[] {
  const words = name
    .replaceAll(/([a-z0-9])([A-Z])/g, '$1 $2')
    .toLowerCase()
    .split(/[\s_.-]+/)
  return words.flatMap((word) =>
    word === '' ? [] : [entryOf(SYNONYMS, word) ?? word.replace(/(?<=[^s])s$/, '')],
  )
}
