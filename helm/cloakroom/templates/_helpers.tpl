{{- define "cloakroom.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* 57, so that the longest suffix (-admin) still fits into the 63 characters of a DNS label. */}}
{{- define "cloakroom.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 57 | trimSuffix "-" }}
{{- else if contains (include "cloakroom.name" .) .Release.Name }}
{{- .Release.Name | trunc 57 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "cloakroom.name" .) | trunc 57 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "cloakroom.selectorLabels" -}}
app.kubernetes.io/name: {{ include "cloakroom.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "cloakroom.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "cloakroom.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "cloakroom.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "cloakroom.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "cloakroom.image" -}}
{{- if .Values.image.digest }}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest }}
{{- else }}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag | toString) }}
{{- end }}
{{- end }}

{{/* The port of a "host:port" address. */}}
{{- define "cloakroom.port" -}}
{{- regexFind "[0-9]+$" (toString .) }}
{{- end }}

{{/*
What is one of several kinds, each with keys of its own, has its defaults here and not in values.yaml: helm merges maps, so
that a default of one kind would stand beside the keys of another, which Cloakroom refuses. A null is an absent key.
*/}}
{{- define "cloakroom.clientAuth" -}}
{{- $auth := dict -}}
{{- range $key, $value := default dict (default dict .Values.config.provider).clientAuth -}}
{{- if not (kindIs "invalid" $value) }}{{ $_ := set $auth $key $value }}{{ end -}}
{{- end -}}
{{- $auth = merge $auth (dict "method" "client_secret_post") -}}
{{- if hasPrefix "client_secret_" (toString $auth.method) -}}
{{- $auth = merge $auth (dict "secret" (dict "file" (printf "%s/client-secret" .Values.secrets.mountPath))) -}}
{{- end -}}
{{- toYaml $auth }}
{{- end }}

{{- define "cloakroom.store" -}}
{{- $store := dict -}}
{{- range $key, $value := default dict (default dict .Values.config.session).store -}}
{{- if not (kindIs "invalid" $value) }}{{ $_ := set $store $key $value }}{{ end -}}
{{- end -}}
{{- toYaml (merge $store (dict "type" "redis")) }}
{{- end }}

{{/*
What makes a running pod differ: the config file, byte for byte. The admin listener is told the names of its Service;
by any other name it refuses to be called, so that no web page reads it by DNS rebinding.
*/}}
{{- define "cloakroom.configFile" -}}
{{- $config := deepCopy .Values.config -}}
{{- $provider := default dict $config.provider -}}
{{- $_ := set $provider "clientAuth" (include "cloakroom.clientAuth" . | fromYaml) -}}
{{- $_ := set $config "provider" $provider -}}
{{- $session := default dict $config.session -}}
{{- $_ := set $session "store" (include "cloakroom.store" . | fromYaml) -}}
{{- $_ := set $config "session" $session -}}
{{- if .Values.adminService.enabled -}}
{{- $service := printf "%s-admin" (include "cloakroom.fullname" .) -}}
{{- $local := printf "%s.%s" $service .Release.Namespace -}}
{{- $names := list $service $local (printf "%s.svc" $local) (printf "%s.svc.%s" $local .Values.clusterDomain) -}}
{{- $admin := default dict $config.admin -}}
{{- $_ := set $admin "hosts" (concat $names (default list $admin.hosts) | uniq) -}}
{{- $_ := set $config "admin" $admin -}}
{{- end -}}
{{- toYaml $config }}
{{- end }}

{{/* Every problem the chart can see, in one report. The program's own `check` judges the rest of the config. */}}
{{- define "cloakroom.validate" -}}
{{- $c := .Values.config -}}
{{- $provider := default dict $c.provider -}}
{{- $session := default dict $c.session -}}
{{- $store := include "cloakroom.store" . | fromYaml -}}
{{- $auth := include "cloakroom.clientAuth" . | fromYaml -}}
{{- $p := list -}}
{{- if not .Values.secrets.existingSecret -}}
{{- $p = append $p "secrets.existingSecret: name the Secret that holds the session key and the client secret, e.g. --set secrets.existingSecret=cloakroom" -}}
{{- end -}}
{{- if not $c.publicUrl -}}
{{- $p = append $p "config.publicUrl: the origin that browsers see is missing, e.g. https://app.example.com" -}}
{{- end -}}
{{- if not $provider.issuer -}}
{{- $p = append $p "config.provider.issuer: the identity provider is missing, e.g. https://login.microsoftonline.com/TENANT/v2.0" -}}
{{- end -}}
{{- if not $provider.clientId -}}
{{- $p = append $p "config.provider.clientId: the client id registered at the provider is missing" -}}
{{- end -}}
{{- if not $c.routes -}}
{{- $p = append $p "config.routes: no route yet, e.g. [{ path: /, upstream: \"http://spa:80\", auth: anonymous }]" -}}
{{- end -}}
{{- range $name, $address := dict "config.listen" $c.listen "config.admin.listen" (default dict $c.admin).listen -}}
{{- if not (regexMatch ":[1-9][0-9]*$" (toString $address)) -}}
{{- $p = append $p (printf "%s: must be host:port with a fixed port, e.g. 0.0.0.0:8080" $name) -}}
{{- end -}}
{{- end -}}
{{- if and (eq (toString $store.type) "memory") (gt (int .Values.replicas) 1) -}}
{{- $p = append $p (printf "config.session.store.type: memory is not shared between %d replicas, users would lose their sessions at random; use redis, or replicas: 1" (int .Values.replicas)) -}}
{{- end -}}
{{- if and (eq (toString $store.type) "redis") (not (or $store.url $store.cluster $store.sentinels)) -}}
{{- $p = append $p "config.session.store.url: where is Redis? e.g. rediss://redis:6379; or cluster, or sentinels with masterName" -}}
{{- end -}}
{{- if regexMatch "://[^/@]*:[^/@$][^/@]*@" (toString (default "" $store.url)) -}}
{{- $p = append $p "config.session.store.url: holds a password, which would stand in the ConfigMap; write password: { file: /run/secrets/redis-password } instead" -}}
{{- end -}}
{{- range $name, $value := dict "config.provider.clientAuth.secret" $auth.secret "config.provider.clientAuth.key" $auth.key "config.session.store.password" $store.password "config.session.store.sentinelPassword" $store.sentinelPassword -}}
{{- if and $value (kindIs "string" $value) (not (regexMatch "^\\$\\{[A-Za-z_][A-Za-z0-9_]*\\}$" $value)) -}}
{{- $p = append $p (printf "%s: a secret written here would stand in the ConfigMap; write { file: %s/NAME } instead" $name $.Values.secrets.mountPath) -}}
{{- end -}}
{{- end -}}
{{- range $i, $key := default list $session.keys -}}
{{- if and (kindIs "string" $key) (not (regexMatch "^\\$\\{[A-Za-z_][A-Za-z0-9_]*\\}$" $key)) -}}
{{- $p = append $p (printf "config.session.keys[%d]: a session key written here would stand in the ConfigMap; write { file: %s/session-key } instead" $i $.Values.secrets.mountPath) -}}
{{- end -}}
{{- end -}}
{{- if contains "PRIVATE KEY-----" (include "cloakroom.configFile" .) -}}
{{- $p = append $p (printf "config: holds a private key, which would stand in the ConfigMap; write { file: %s/NAME } instead" .Values.secrets.mountPath) -}}
{{- end -}}
{{- if le (int .Values.terminationGracePeriodSeconds) (int .Values.preStopSleepSeconds) -}}
{{- $p = append $p "terminationGracePeriodSeconds: must be more than preStopSleepSeconds, or requests in flight are cut off" -}}
{{- end -}}
{{- if $p -}}
{{- fail (printf "\n\nThe chart cannot be rendered yet:\n  - %s\n" (join "\n  - " $p)) -}}
{{- end -}}
{{- end }}
