import { cloakroom, tellExchange } from './cloakroom.js'
import { byId, jsonOf, make, onAction, tell } from './dom.js'

const sizes = new Intl.NumberFormat(undefined, { style: 'unit', unit: 'kilobyte', maximumFractionDigits: 0 })

/** An upload with its progress, which waits for a sign-in too; downloads are links. */
export function startFiles() {
  const bar = byId('progress')
  onAction(byId('upload'), 'upload-result', async () => {
    const [file] = byId('file').files
    if (!file) return tell('upload-result', 'Choose a file first.', 'failed')
    bar.hidden = false
    try {
      const { name } = await send(file, (progress) => {
        bar.value = progress
        tell('upload-result', `${Math.round(100 * progress)} %`)
      })
      tell('upload-result', `${name} is kept.`)
      byId('upload').reset()
      await showFiles()
    } finally {
      bar.hidden = true
    }
  })
}

/** Sends a file, and tells the journal, which sees no upload by itself. */
async function send(file, onProgress) {
  const startedAt = performance.now()
  const tellJournal = (status, body) => {
    const durationMs = Math.round(performance.now() - startedAt)
    tellExchange({ method: 'POST', path: '/api/files', status, body, durationMs })
  }
  try {
    const response = await cloakroom.upload('/api/files', file, {
      headers: { 'X-File-Name': encodeURIComponent(file.name) },
      whenSignedOut: 'wait',
      onProgress: ({ loaded, total }) => onProgress(loaded / total),
    })
    tellJournal(response.status, await response.clone().json())
    return (await jsonOf(response)).file
  } catch (error) {
    const { code, status, message: detail, reason, requestId: request_id } = error
    if (code) tellJournal(status, { status, code, detail, reason, request_id })
    throw error
  }
}

/** Links need no script: the route takes same-origin requests without the header (`csrf: fetch-metadata`). */
export async function showFiles() {
  const { files } = await jsonOf(await cloakroom.fetch('/api/files', { background: true }))
  byId('files').replaceChildren(
    ...files.slice(0, 3).map(({ id, name, size }) => {
      const item = make('li')
      item.append(
        make('a', name, { href: `/api/files/${id}`, download: name }),
        ` ${sizes.format(Math.ceil(size / 1000))}`,
      )
      return item
    }),
  )
}
