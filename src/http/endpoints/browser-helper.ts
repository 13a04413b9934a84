import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import * as nodeModule from 'node:module'
import type { RequestHandler } from 'express'
import { donePage, sendPage } from './pages.ts'

/** The text of a script, ready to be sent. */
type Script = { readonly text: string; readonly etag: string }

let helper: Script | undefined

/** Serves `B/client.js`, the browser helper (contract section 4a). A browser asks each time whether it has changed. */
export const clientScript: RequestHandler = function clientScript(_req, res) {
  helper ??= readHelper()
  res.setHeader('cache-control', 'no-cache')
  res.setHeader('etag', helper.etag)
  res.type('text/javascript').send(helper.text)
}

/** Makes `B/done`, on which the sign-in of a popup ends when it went well, or when the provider needs the user first. */
export function createDone(basePath: string): RequestHandler {
  return function done(req, res) {
    const { id, login_error: reason } = req.query
    sendPage(
      res,
      donePage(basePath, {
        done: typeof id === 'string' ? id : '',
        ...(typeof reason === 'string' && /^\w{1,64}$/.test(reason)
          ? { code: 'session_required', reason }
          : {}),
      }),
    )
  }
}

/** A build has it compiled; a checkout takes the types out of the source, as Node does for all others. */
function readHelper(): Script {
  const isSource = import.meta.url.endsWith('.ts')
  const file = new URL(`../../client/client.${isSource ? 'ts' : 'js'}`, import.meta.url)
  const code = readFileSync(file, 'utf8')
  const text = withoutComments(isSource ? nodeModule.stripTypeScriptTypes(code) : code)
  return { text, etag: `"${createHash('sha256').update(text).digest('base64url').slice(0, 22)}"` }
}

/** Takes out comments and indentation. No string of the helper has what looks like a comment; a test says so. */
function withoutComments(code: string): string {
  return code
    .replace(/^[ \t]*\/\*[\s\S]*?\*\//gm, '')
    .replace(/^[ \t]*\/\/.*$/gm, '')
    .replace(/^[ \t]+|[ \t]+$/gm, '')
    .replace(/ {2,}/g, ' ')
    .replace(/\n{2,}/g, '\n')
    .trimStart()
}
