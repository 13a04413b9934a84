import { cloakroom, tellExchange } from './cloakroom.js'
import { byId, jsonOf, make, onAction, tell } from './dom.js'

const sizes = new Intl.NumberFormat(undefined, { style: 'unit', unit: 'kilobyte', maximumFractionDigits: 0 })

/** An upload with its progress, which waits for a sign-in too; downloads are links. */
export function startFiles() {
  const bar = byId('progress')
  onAction(byId('upload'), 'upload-result', async () => {
    const [file] = byId('file').files
    if (!file) return tell('upload-result', 'Choose a file first.', 'failed')
    const startedAt = performance.now()
    bar.hidden = false
    try {
      const response = await cloakroom.upload('/api/files', file, {
        headers: { 'X-File-Name': encodeURIComponent(file.name) },
        whenSignedOut: 'wait',
        onProgress: ({ loaded, total }) => {
          bar.value = loaded / total
          tell('upload-result', `${Math.round((100 * loaded) / total)} %`)
        },
      })
      const body = await jsonOf(response)
      const durationMs = Math.round(performance.now() - startedAt)
      tellExchange({ method: 'POST', path: '/api/files', status: response.status, body, durationMs })
      tell('upload-result', `${body.file.name} is kept.`)
      byId('upload').reset()
      await showFiles()
    } finally {
      bar.hidden = true
    }
  })
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
