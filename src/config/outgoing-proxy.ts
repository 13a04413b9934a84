import type { OutgoingProxy } from './config.ts'
import type { Environment } from './environment.ts'
import type { Field } from './report/report.ts'
import { Secret } from './secrets/secret.ts'

/**
 * The proxies that calls to the provider go through, from `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY`. In lower case they
 * come first, as with curl. Undefined when there are none; what is wrong is reported without the value, which may hold a
 * password.
 */
export function readOutgoingProxy(env: Environment, root: Field): OutgoingProxy | undefined {
  const https = proxyIn(env, 'HTTPS_PROXY', root)
  const http = proxyIn(env, 'HTTP_PROXY', root)
  if (!https && !http) return undefined
  const [, exceptions = ''] = variable(env, 'NO_PROXY') ?? []
  return {
    ...(https ? { https } : {}),
    ...(http ? { http } : {}),
    except: exceptions.split(/[\s,]+/).filter((entry) => entry !== ''),
  }
}

function proxyIn(env: Environment, name: string, root: Field): Secret | undefined {
  const [written, value] = variable(env, name) ?? []
  if (written === undefined || value === undefined) return undefined
  // A bare host is an HTTP proxy, as for curl.
  const text = /^[a-z][a-z\d+.-]*:\/\//i.test(value) ? value : `http://${value}`
  const url = URL.canParse(text) ? new URL(text) : undefined
  if (url && /^https?:$/.test(url.protocol) && url.hostname !== '' && isDecodable(url))
    return new Secret(url.href)
  root.problem(
    `environment variable ${written} must be the http(s) URL of a proxy, e.g. http://proxy.example.com:3128; correct it, or unset it`,
  )
  return undefined
}

function variable(env: Environment, name: string): [name: string, value: string] | undefined {
  for (const written of [name.toLowerCase(), name]) {
    const value = env[written]?.trim()
    if (value !== undefined && value !== '') return [written, value]
  }
  return undefined
}

function isDecodable({ username, password }: URL): boolean {
  try {
    return decodeURIComponent(username + password) !== undefined
  } catch {
    return false
  }
}
