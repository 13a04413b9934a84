import { IncomingMessage, ServerResponse } from 'node:http'
import { Socket } from 'node:net'
import helmet from 'helmet'

/**
 * Headers of Cloakroom's own answers (ASVS 3.4): nothing is cached, framed, or loaded from elsewhere. They depend on
 * the configuration only, so helmet is asked once and not for every request.
 */
export function ownAnswerHeaders(publicUrl: string): Readonly<Record<string, string>> {
  const protect = helmet({
    contentSecurityPolicy: {
      useDefaults: false,
      directives: {
        defaultSrc: ["'none'"],
        baseUri: ["'none'"],
        formAction: ["'none'"],
        frameAncestors: ["'none'"],
      },
    },
    strictTransportSecurity: publicUrl.startsWith('https:'),
    referrerPolicy: { policy: 'no-referrer' },
  })
  const sample = new IncomingMessage(new Socket())
  const answer = new ServerResponse(sample)
  protect(sample, answer, (error) => {
    if (error) throw error
  })
  const fields = Object.entries(answer.getHeaders()).map(([name, value]) => [name, String(value)])
  return { ...Object.fromEntries(fields), 'cache-control': 'no-store' }
}
