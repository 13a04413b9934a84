import type { Field } from './report/report.ts'
import { isQuoted } from './rules/secret-rules.ts'

/** The environment as the process got it. */
export type Environment = Readonly<Record<string, string | undefined>>

// biome-ignore lint/suspicious/noTemplateCurlyInString: it is what the operator writes
const NO_NAME = 'has a "${" that names no variable: write ${NAME}, or $${ for a literal "${"'
// biome-ignore lint/suspicious/noTemplateCurlyInString: it is what the operator writes
const WITH_DEFAULT = 'has a "${" with a default, which is not read: write ${NAME}, and set the variable'

/**
 * Replaces every `${NAME}` by the variable's value without its final line breaks; `$${` stands for `${` itself. Says
 * which names are not set, and which values begin or end with an invisible blank.
 */
export function interpolate(text: string, env: Environment): { value: string; problem?: string } {
  const problems = new Set<string>()
  const value = text.replace(/\$(\$\{)|\$\{([^}]*)(\}?)/g, (whole, escaped, name, end) => {
    if (escaped !== undefined) return escaped
    if (end === '' || !/^[A-Za-z_][A-Za-z0-9_]*$/.test(name)) {
      const isWithDefault = /^[A-Za-z_]\w*:?[-?+=]/.test(name)
      problems.add(isWithDefault ? WITH_DEFAULT : NO_NAME)
      return whole
    }
    const written = env[name]?.replace(/(?:\r?\n)+$/, '')
    if (written === undefined) problems.add(`environment variable ${name} is not set`)
    else if (written !== written.trim()) {
      problems.add(
        `environment variable ${name} begins or ends with a blank or a byte order mark: set it without`,
      )
    } else if (isQuoted(written)) {
      problems.add(
        `environment variable ${name} is in quotation marks, which docker --env-file keeps: set it without`,
      )
    }
    return written ?? whole
  })
  return problems.size === 0 ? { value } : { value, problem: [...problems].join('; ') }
}

/** Node.js verifies no certificate with this variable, of whatever server: provider, upstreams and Redis would be anybody. */
export function requireVerifiedTls(env: Environment, root: Field): void {
  if (env.NODE_TLS_REJECT_UNAUTHORIZED !== '0') return
  root.problem(
    'environment variable NODE_TLS_REJECT_UNAUTHORIZED must not be 0, which believes every certificate; unset it, and name a private CA in provider.tls.ca, routes[].tls.ca or session.store.tls.ca',
  )
}
