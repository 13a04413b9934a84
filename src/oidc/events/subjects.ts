/** Whom an event is about, as far as Cloakroom knows such people: by the provider's user, its session, or an e-mail address. */
export type SignalSubject = {
  /** `iss` and `sub` of the user. */
  readonly user?: { readonly iss: string; readonly sub: string }
  /** Lower case. */
  readonly email?: string
  /** The provider's session, `sid` in ID tokens. */
  readonly idpSid?: string
}

/** The ways of naming a user that the operator has allowed. */
export type AllowedSubjects = readonly ('iss_sub' | 'email')[]

type Members = Readonly<Record<string, unknown>>

/** What Keycloak names all sessions of a user with. */
const ALL_SESSIONS = 'ALL'

/**
 * Reads a subject identifier (RFC 9493 §3), complex ones too (SSF 1.0 §3.3), and the older form of both (`subject_type`).
 * An opaque identifier is one of a session. A complex subject is all that its members name together; of these a device
 * and a tenant tell nothing here, so that a user's event on one device is about the user. Undefined when no session
 * of Cloakroom's can be of it.
 */
export function subjectOf(identifier: unknown, allowed: AllowedSubjects): SignalSubject | undefined {
  const members = membersOf(identifier)
  if (!members) return undefined
  const format = formatOf(members)
  if (format === 'opaque') return sessionOf(members)
  if (format !== 'complex' && format !== undefined) return userOf(members, allowed)
  const user = userOf(membersOf(members.user), allowed)
  const session = sessionOf(membersOf(members.session))
  // Without a user, "all sessions" would be those of everybody.
  return user || session ? { ...user, ...session } : undefined
}

function membersOf(value: unknown): Members | undefined {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Members) : undefined
}

function formatOf({ format, subject_type: subjectType }: Members): string | undefined {
  const named = format ?? subjectType
  return typeof named === 'string' ? named.replaceAll('-', '_') : undefined
}

function userOf(members: Members | undefined, allowed: AllowedSubjects): SignalSubject | undefined {
  if (!members) return undefined
  switch (formatOf(members)) {
    case 'iss_sub': {
      const { iss, sub } = members
      if (!allowed.includes('iss_sub') || !isText(iss) || !isText(sub)) return undefined
      return { user: { iss, sub } }
    }
    case 'email': {
      const { email } = members
      return allowed.includes('email') && isText(email) ? { email: email.toLowerCase() } : undefined
    }
    case 'aliases': {
      // RFC 9493 §3.2.8: all of them are the same subject.
      const { identifiers } = members
      if (!Array.isArray(identifiers)) return undefined
      const users = identifiers.flatMap((one) => {
        const alias = membersOf(one)
        return (alias && formatOf(alias) !== 'aliases' && userOf(alias, allowed)) || []
      })
      return users.length === 0 ? undefined : Object.assign({}, ...users)
    }
    default:
      return undefined
  }
}

function sessionOf(members: Members | undefined): SignalSubject | undefined {
  if (!members || formatOf(members) !== 'opaque' || !isText(members.id)) return undefined
  return members.id === ALL_SESSIONS ? undefined : { idpSid: members.id }
}

function isText(value: unknown): value is string {
  return typeof value === 'string' && value !== ''
}
