{{/*
The config as the pods get it: parts added, nulls taken out, defaults of what is one of several kinds (store, clientAuth)
filled in. Helm merges maps, so that in values.yaml a default of one kind would stand beside the keys of another. The admin listener is told the names of its Service; by any
other name it refuses to be called, so that no web page reads it by DNS rebinding.
*/}}
{{- define "cloakroom.config" -}}
{{- $config := deepCopy .Values.config -}}
{{- include "cloakroom.dropNulls" $config -}}
{{- $provider := default dict $config.provider -}}
{{- $auth := default dict $provider.clientAuth -}}
{{- $auth = set $auth "method" (default "client_secret_post" $auth.method) -}}
{{- if and (hasPrefix "client_secret_" $auth.method) (not $auth.secret) -}}
{{- $_ := set $auth "secret" (dict "file" (printf "%s/client-secret" .Values.secrets.mountPath)) -}}
{{- end -}}
{{- $_ := set $config "provider" (set $provider "clientAuth" $auth) -}}
{{- $session := default dict $config.session -}}
{{- $store := default dict $session.store -}}
{{- if and .Values.demoValkey.enabled (not $store) -}}
{{- $_ := set $store "url" (printf "redis://%s-valkey:6379" (include "cloakroom.fullname" .)) -}}
{{- end -}}
{{- $_ := set $config "session" (set $session "store" (set $store "type" (default "redis" $store.type))) -}}
{{- range $name, $written := .Values.configParts -}}
{{- $part := deepCopy (default dict $written) -}}
{{- include "cloakroom.dropNulls" $part -}}
{{- $_ := set $config "resources" (merge (default dict $config.resources) (default dict $part.resources)) -}}
{{- range $list := list "routes" "tests" -}}
{{- with get $part $list -}}
{{- $_ := set $config $list (concat (default list (get $config $list)) .) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if .Values.adminService.enabled -}}
{{- $service := printf "%s-admin" (include "cloakroom.fullname" .) -}}
{{- $local := printf "%s.%s" $service (include "cloakroom.namespace" .) -}}
{{- $names := list $service $local (printf "%s.svc" $local) (printf "%s.svc.%s" $local .Values.clusterDomain) -}}
{{- $admin := default dict $config.admin -}}
{{- $_ := set $config "admin" (set $admin "hosts" (concat $names (default list $admin.hosts) | uniq)) -}}
{{- end -}}
{{- toYaml $config }}
{{- end }}

{{/* Takes out of a map, at any depth, what a later values file has set to null. */}}
{{- define "cloakroom.dropNulls" -}}
{{- $map := . -}}
{{- range $key, $value := $map -}}
{{- if kindIs "invalid" $value }}{{ $_ := unset $map $key }}{{ else if kindIs "map" $value }}{{ include "cloakroom.dropNulls" $value }}{{ end -}}
{{- end -}}
{{- end }}

{{/* Ten characters that another config does not have. */}}
{{- define "cloakroom.configHash" -}}
{{- include "cloakroom.config" . | sha256sum | trunc 10 }}
{{- end }}

{{/* The ConfigMap that the pods mount. With `roll` each config has one of its own. */}}
{{- define "cloakroom.configMapName" -}}
{{- if .Values.existingConfigMap }}{{ .Values.existingConfigMap }}
{{- else if eq .Values.reload "roll" }}{{ include "cloakroom.fullname" . }}-{{ include "cloakroom.configHash" . }}
{{- else }}{{ include "cloakroom.fullname" . }}{{ end }}
{{- end }}

{{/* What is under every key `.key`, at any depth of `.value`: one a line. */}}
{{- define "cloakroom.valuesOf" -}}
{{- $key := .key -}}
{{- if kindIs "map" .value -}}
{{- range $name, $value := .value -}}
{{- if and (eq $name $key) (kindIs "string" $value) }}{{ $value }}
{{ else }}{{ include "cloakroom.valuesOf" (dict "key" $key "value" $value) }}{{ end -}}
{{- end -}}
{{- else if kindIs "slice" .value -}}
{{- range .value }}{{ include "cloakroom.valuesOf" (dict "key" $key "value" .) }}{{ end -}}
{{- end -}}
{{- end }}

{{/* Paths below secrets.mountPath that the config names and that nothing else of the values mounts, without that directory. */}}
{{- define "cloakroom.namedFiles" -}}
{{- $prefix := printf "%s/" .Values.secrets.mountPath -}}
{{- if not .Values.existingConfigMap -}}
{{- range splitList "\n" (include "cloakroom.valuesOf" (dict "key" "file" "value" (include "cloakroom.config" . | fromYaml))) -}}
{{- $path := . -}}
{{- if hasPrefix $prefix $path -}}
{{- $elsewhere := false -}}
{{- range $.Values.extraVolumeMounts }}{{ if hasPrefix (printf "%s/" (trimSuffix "/" .mountPath)) $path }}{{ $elsewhere = true }}{{ end }}{{ end -}}
{{- range $.Values.secrets.additional }}{{ if hasKey .files (trimPrefix $prefix $path) }}{{ $elsewhere = true }}{{ end }}{{ end -}}
{{- if not $elsewhere }}{{ trimPrefix $prefix $path }}
{{ end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/* File → key of secrets.existingSecret: what the config names, over which secrets.files has the last word. */}}
{{- define "cloakroom.secretItems" -}}
{{- $items := dict -}}
{{- range splitList "\n" (include "cloakroom.namedFiles" .) }}{{ if . }}{{ $_ := set $items . . }}{{ end }}{{ end -}}
{{- range $file, $key := .Values.secrets.files -}}
{{- if $key }}{{ $_ := set $items $file $key }}{{ else }}{{ $_ := unset $items $file }}{{ end -}}
{{- end -}}
{{- toYaml $items }}
{{- end }}

{{/* The URLs and host:port addresses that the pods connect to: one a line. */}}
{{- define "cloakroom.addresses" -}}
{{- $config := include "cloakroom.config" . | fromYaml -}}
{{- range $config.routes }}{{ .upstream }}
{{ end -}}
{{- range $key, $value := $config.provider -}}
{{- if eq $key "issuer" }}{{ $value }}
{{ else if eq $key "endpoints" }}{{ range $value }}{{ . }}
{{ end }}{{ else if eq $key "sharedSignals" }}{{ get $value "transmitter" }}
{{ end -}}
{{- end -}}
{{- $store := $config.session.store -}}
{{- with $store.url }}{{ . }}
{{ end -}}
{{- range concat (default list $store.cluster) (default list $store.sentinels) }}cluster://{{ . }}
{{ end -}}
{{- range .Values.extraEnv -}}
{{- if and .value (has (upper .name) (list "HTTP_PROXY" "HTTPS_PROXY" "OTEL_EXPORTER_OTLP_ENDPOINT" "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")) }}{{ .value }}
{{ end -}}
{{- end -}}
{{- end }}
