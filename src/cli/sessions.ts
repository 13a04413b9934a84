import { parseArgs } from 'node:util'
import { createSubjectPseudonyms, endOf } from '../app/audit.ts'
import { systemClock } from '../async/clock.ts'
import { silentLog } from '../async/log-throttle.ts'
import type { Config } from '../config/config.ts'
import { BffError, describeError } from '../errors.ts'
import { createLogger } from '../log.ts'
import { LOGIN_LIFETIME_MS } from '../oidc/sign-in/attempts.ts'
import { createUserSessions, type ListedSession, type UserSessions } from '../session/session-index.ts'
import type { SessionHash } from '../store/port.ts'
import { createRedisStore } from '../store/redis/redis-store.ts'
import { bindToGrants, createIndexPseudonyms, createSealing } from '../tokens/record/sealing.ts'
import { type CommandIo, usageError } from './command.ts'
import { configFileName, EXIT_BAD_CONFIG, loadOrReport } from './config/config-file.ts'

const USAGE = `usage: cloakroom sessions --user SUB [--end] [--issuer URL] [--config FILE]

Lists the sessions of one user, or ends them on all replicas. Goes to the session store itself: no replica need run. Refresh tokens of sessions that end so are not revoked, because only the user's cookies open them.

Standard error says by which "subject" the audit log names this user, under each of session.keys, and with --end gets an audit line for each session that has ended: keep it.

  --user SUB       the user's sub claim
  --end            end them, in place of listing them
  --issuer URL     the iss claim of the user; default: provider.issuer, for each of provider.allowedTenants
  --config FILE    default: $CLOAKROOM_CONFIG, else config/cloakroom.yaml
`

/** Lists or ends the sessions of one user; resolves with 0, 78 for a bad config, 1 when there are none or the store cannot be asked. */
export async function sessionsCommand(args: string[], io: CommandIo): Promise<number> {
  const options = readOptions(args, io)
  if (typeof options === 'number') return options
  const config = loadOrReport(configFileName(options.config, io.env), io)?.config
  if (!config) return EXIT_BAD_CONFIG
  const issuers = options.issuer === undefined ? issuersOf(config) : [options.issuer]
  if (issuers.length === 0) {
    io.stderr.write(
      'cloakroom sessions: provider.issuer is for many tenants, and provider.allowedTenants names none: give --issuer, the iss claim of the user\n',
    )
    return 1
  }
  const users = issuers.map((iss) => ({ iss, sub: options.user }))
  const pseudonyms = config.session.keys.map((key) => createSubjectPseudonyms([key]))
  for (const user of users) {
    const [subject, ...earlier] = pseudonyms.map((subjectOf) => subjectOf(user))
    const before = earlier.length === 0 ? '' : `; under earlier session keys: ${earlier.join(', ')}`
    io.stderr.write(`cloakroom sessions: subject of this user in the audit log: ${subject}${before}\n`)
  }
  const ended = createEndings(config, io)
  try {
    return await withSessions({ config, ended: ended.note }, async (sessions) => {
      const count = await (options.end
        ? endAll({ sessions, ended, io }, users)
        : listAll(sessions, users, io))
      if (count === 0) io.stderr.write('cloakroom sessions: this user has no sessions\n')
      return count === 0 ? 1 : 0
    })
  } catch (error) {
    const cause = error instanceof BffError && error.cause ? `: ${describeError(error.cause).message}` : ''
    io.stderr.write(`cloakroom sessions: ${describeError(error).message}${cause}\n`)
    return 1
  } finally {
    ended.tell()
  }
}

/** The audit lines of what this command ends: what ended before the store failed has ended, and is told. */
function createEndings({ session: { keys } }: Config, { stderr }: CommandIo) {
  const subjectOf = createSubjectPseudonyms(keys)
  const { audit } = createLogger({ destination: stderr })
  const ended: { readonly hash: SessionHash; readonly subject: string }[] = []
  let subject = ''
  return {
    of: (user: User) => {
      subject = subjectOf(user)
    },
    note: (hash: SessionHash) => void ended.push({ hash, subject }),
    tell(): void {
      for (const { hash, subject } of ended) {
        audit?.('session_ended', { ...endOf(hash, OPERATOR), subject, count: ended.length })
      }
    },
  }
}

const OPERATOR = 'operator'

type Options = {
  readonly user: string
  readonly end: boolean
  readonly issuer?: string
  readonly config?: string
}

/** The options, or the exit code for wrong ones. */
function readOptions(args: string[], io: CommandIo): Options | number {
  try {
    const text = { type: 'string' } as const
    const { values } = parseArgs({
      args,
      options: {
        ...{ user: text, issuer: text, config: text, end: { type: 'boolean' } },
        help: { type: 'boolean', short: 'h' },
      },
    })
    const { user, end = false, help, ...more } = values
    if (help) {
      io.stdout.write(USAGE)
      return 0
    }
    if (user === undefined || user === '') throw new Error('--user SUB is missing')
    return { ...more, user, end }
  } catch (error) {
    return usageError({ error, usage: USAGE }, io)
  }
}

/** Entra ID writes the tenant into the issuer of each ID token, where the configured one names several. */
function issuersOf({ provider }: Config): string[] {
  const several = /\/(?:common|organizations|consumers|\{tenantid\})(?=\/|$)/
  if (!several.test(provider.issuer)) return [provider.issuer]
  return provider.allowedTenants.map((tenant) => provider.issuer.replace(several, `/${tenant}`))
}

/** Opens the store, lends the sessions in it, and closes it. */
async function withSessions<T>(
  { config, ended }: { config: Config; ended: (hash: SessionHash) => void },
  use: (sessions: UserSessions) => Promise<T>,
): Promise<T> {
  const { store: address, keys, idleTimeoutMs, absoluteTimeoutMs } = config.session
  if (address.type === 'memory') {
    throw new Error(
      'session.store is memory: its sessions are in the process that serves them, and no other can see them',
    )
  }
  const times = { idleTimeoutMs: () => idleTimeoutMs, absoluteTimeoutMs: () => absoluteTimeoutMs }
  const store = await createRedisStore(address, times, { log: silentLog })
  const sealing = bindToGrants(createSealing(keys), config)
  try {
    return await use(
      createUserSessions({
        ...{ store, pseudonyms: createIndexPseudonyms(keys), signInLifetimeMs: LOGIN_LIFETIME_MS },
        sealAbout: (hash, text) => sealing.seal({ id: hash, kind: 'about' }, text),
        openAbout: (hash, sealed) => sealing.open({ id: hash, kind: 'about' }, sealed),
        ended,
        now: systemClock.now,
      }),
    )
  } finally {
    await store.close()
  }
}

type User = { readonly iss: string; readonly sub: string }

/** Most sessions that are listed. */
const LISTED = 10_000

async function listAll(sessions: UserSessions, users: readonly User[], io: CommandIo): Promise<number> {
  const lists = await Promise.all(users.map((user) => sessions.list(user, { most: LISTED })))
  const listed = lists.flat()
  if (listed.length > 0) io.stdout.write(`${HEAD.join('  ')}\n`)
  for (const session of listed) io.stdout.write(`${lineOf(session)}\n`)
  return listed.length
}

const HEAD = ['ID'.padEnd(22), 'CREATED'.padEnd(24), 'LAST SEEN'.padEnd(24), 'FROM'.padEnd(15), 'BROWSER']

function lineOf({ id, created, lastSeen, ip = '?', userAgent = '?' }: ListedSession): string {
  const time = (ms: number | undefined) => (ms === undefined ? '?' : new Date(ms).toISOString()).padEnd(24)
  return [id, time(created), time(lastSeen), printable(ip).padEnd(15), printable(userAgent)].join('  ')
}

/** A browser says what it likes: nothing of it may steer the terminal. */
function printable(text: string): string {
  return text.replaceAll(/[^\x20-\x7e]/g, '?')
}

async function endAll(
  {
    sessions,
    ended,
    io,
  }: { sessions: UserSessions; ended: Pick<ReturnType<typeof createEndings>, 'of'>; io: CommandIo },
  users: readonly User[],
): Promise<number> {
  let count = 0
  // One after the other, so that each end is told of its user.
  for (const user of users) {
    ended.of(user)
    count += await sessions.end(user, OPERATOR)
  }
  if (count > 0) io.stdout.write(`${count} ${count === 1 ? 'session has' : 'sessions have'} ended\n`)
  return count
}
